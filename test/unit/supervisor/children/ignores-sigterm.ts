import { onStart, say } from './channel.js'

process.on('SIGTERM', () => {
  say({ event: 'log', level: 'info', message: 'no' })
})
onStart(() => {
  say({ event: 'log', level: 'info', message: 'started' })
})
