// What a trimmed file system gives back, seen where it matters: on the disks of the replicas.

import { statSync } from 'node:fs'
import type { Test } from 'tap'
import type { Volume } from '../conformance/volume.js'
import type { FileSystem } from './file-system.js'

/** Every replica's head takes up less afterwards, by `bytesMin` at least. */
export async function trimShrinks(t: Test, fs: FileSystem, volume: Volume, bytesMin: number): Promise<void> {
  const heads = await volume.headFiles()
  const allocated = (): number[] => heads.map((file) => statSync(file).blocks * 512)
  // What is freed is only then free for good: xfs does it later, and does not trim it before.
  await fs.unmount()
  await fs.mount()
  const before = allocated()
  await fs.trim()
  const after = allocated()
  for (const [n, bytes] of after.entries()) {
    t.ok(before[n]! - bytes >= bytesMin, `replica ${n + 1}: from ${before[n]!} to ${bytes} bytes`)
  }
}
