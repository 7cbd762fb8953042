// Its JavaScript never comes back, so that no handler of it runs.
import { onStart, say } from './channel.js'

process.on('SIGTERM', () => process.exit(0))
onStart(() => {
  say({ event: 'log', level: 'info', message: 'started' }, () => {
    for (;;);
  })
})
