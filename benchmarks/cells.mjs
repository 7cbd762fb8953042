// What is measured.

/** `fill`: after a sequential fill in pieces of 1 MiB. `warm`: cache dropped, then read in pieces of 4 KiB. */
export const cacheStates = ['fill', 'warm']

const queueDepths = [1, 32, 128]
const sequentialQueueDepth = 8

/** Reads come first: they leave the cache as it was, so that it need not be made again between them. */
export const cells = [
  ...queueDepths.map((depth) => cell('randread', '4k', depth)),
  ...['128k', '1m'].map((size) => cell('read', size, sequentialQueueDepth)),
  ...queueDepths.map((depth) => cell('randwrite', '4k', depth)),
  ...['128k', '1m'].map((size) => cell('write', size, sequentialQueueDepth)),
]

export const idleCell = 'idle'

function cell(pattern, blockSize, queueDepth) {
  return {
    name: `${pattern}-${blockSize}-qd${queueDepth}`,
    ...{ pattern, blockSize, queueDepth },
    direction: pattern.endsWith('read') ? 'read' : 'write',
  }
}
