// Says two last things and dies in the same breath: one on the channel, one on standard error.
import { onStart, say } from './channel.js'

onStart(() => {
  say({ event: 'log', level: 'error', message: 'last words' }, () => {
    process.stderr.write('CHECK failed: it is broken\n', () => process.kill(process.pid, 'SIGKILL'))
  })
})
