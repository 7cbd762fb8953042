// Says the configuration it was given, echoes what is posted, stops clean.
import { onStart, say } from './channel.js'

process.on('SIGTERM', () => {
  say({ event: 'stopped', clean: true }, () => process.exit(0))
})
onStart((config) => {
  say({ event: 'log', level: 'info', message: 'started', config })
})
