import type { ParentMessage } from '../../../../src/supervisor/child.js'

export function say(event: object, then?: () => void): void {
  process.send?.({ type: 'event', event }, undefined, undefined, () => then?.())
}

export function onStart(start: (config: object) => void): void {
  process.on('message', (message) => {
    const parentMessage = message as ParentMessage
    if (parentMessage.type === 'start') start(parentMessage.config)
    else say({ event: 'log', level: 'info', message: 'posted', posted: parentMessage.message })
  })
  process.on('disconnect', () => process.exit(0))
}
