// For the tests of clones: a volume with snapshots, and what volumes hold.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { VolumeView } from '../../src/api/index.js'
import { pattern } from './builders.js'
import { clientOf, type Up } from './up.js'

export const blockBytes = 64 * 1024

export async function written(node: Up, volume: string, n: number, blocks: number): Promise<void> {
  const client = await clientOf(await node.json('volume', 'show', volume))
  for (let block = 0; block < blocks; block++) await client.write(block * blockBytes, pattern(n + block, blockBytes))
  await client.flush()
  client.close()
}

/** The first blocks, and others behind them. */
export async function holds(t: Test, node: Up, volume: string, ...runs: [n: number, blocks: number][]): Promise<void> {
  const client = await clientOf(await node.json('volume', 'show', volume))
  let block = 0
  const wrong: number[] = []
  for (const [n, until] of runs) {
    for (; block < until; block++) {
      const data = await client.read(block * blockBytes, blockBytes)
      if (!data.equals(n < 0 ? Buffer.alloc(blockBytes) : pattern(n + block, blockBytes))) wrong.push(block)
    }
  }
  client.close()
  t.same(wrong, [], `${volume} holds what it should`)
}

/** «one» of 32 blocks of 1000, of which the first eight are others by now. */
export async function aSource(node: Up): Promise<void> {
  await node.json('volume', 'create', 'data', '--size', '64MiB', '--replicas', '2')
  await node.json('volume', 'attach', 'data')
  await written(node, 'data', 900, 4)
  await node.json('snapshot', 'create', 'data', 'zero')
  await written(node, 'data', 1000, 32)
  await node.json('snapshot', 'create', 'data', 'one')
  await written(node, 'data', 2000, 8)
}

export const layersIn = ({ replicas }: VolumeView): string[] =>
  replicas.flatMap(({ directory }) =>
    readdirSync(directory)
      .filter((name) => /^volume-snap-.*\.img$/.test(name))
      .map((name) => join(directory, name)),
  )

export async function exported(t: Test, node: Up, path: string, volume: string, ...options: string[]): Promise<Buffer> {
  t.match(await node.run('volume', 'export', volume, path, '--force', ...options), { exitCode: 0, stderr: '' })
  return readFileSync(path)
}
