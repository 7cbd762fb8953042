// What is measured.

/** `fill`: after a sequential fill in pieces of 1 MiB. `warm`: cache dropped, then read in pieces of 4 KiB. */
export const cacheStates = ['fill', 'warm']

const queueDepths = [1, 32, 128]
/** Size and queue depth. */
const sequential = [
  ['128k', 8],
  ['1m', 4],
  ['1m', 8],
]

/** Reads come first: they leave the cache as it was, so that it need not be made again between them. */
export const cells = [
  ...queueDepths.map((depth) => cell('randread', '4k', depth)),
  ...sequential.map(([size, depth]) => cell('read', size, depth)),
  ...queueDepths.map((depth) => cell('randwrite', '4k', depth)),
  ...sequential.map(([size, depth]) => cell('write', size, depth)),
]

export const idleCell = 'idle'

function cell(pattern, blockSize, queueDepth) {
  return {
    name: `${pattern}-${blockSize}-qd${queueDepth}`,
    ...{ pattern, blockSize, queueDepth },
    direction: pattern.endsWith('read') ? 'read' : 'write',
  }
}
