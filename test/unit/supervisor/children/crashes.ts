// Says a lot and dies in the same breath; the last of it on the channel, and one line on standard error.
import { onStart, say } from './channel.js'

onStart(() => {
  for (let line = 0; line < 3; line++) say({ event: 'log', level: 'error', message: 'x'.repeat(50_000) })
  say({ event: 'log', level: 'error', message: 'last words' }, () => {
    process.stderr.write('CHECK failed: it is broken\n', () => process.kill(process.pid, 'SIGKILL'))
  })
})
