// What is put on the volumes.

import { createHash, randomFillSync } from 'node:crypto'
import {
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { run } from './tools.js'

const chunkBytes = 1 << 20

/** Data with holes and zeroes between, so that a copy has all three to deal with. */
export function aRawImage(file: string, sizeBytes: number): string {
  const chunk = Buffer.alloc(chunkBytes)
  const zeroes = Buffer.alloc(chunkBytes)
  const image = openSync(file, 'w')
  for (let offset = 0, n = 0; offset < sizeBytes; offset += chunkBytes, n++) {
    if (n % 16 === 7) continue
    if (n % 16 === 11) writeSync(image, zeroes, 0, chunkBytes, offset)
    else writeSync(image, randomFillSync(chunk), 0, chunkBytes, offset)
  }
  ftruncateSync(image, sizeBytes)
  closeSync(image)
  return file
}

/** Files of many sizes, empty and sparse ones, names that need care, links. */
export function aTree(directory: string, bulkBytes: number): string {
  mkdirSync(join(directory, 'deep', 'er', 'still'), { recursive: true })
  for (let n = 0; n < 300; n++) {
    const folder = join(directory, `folder-${n % 17}`)
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, `file ${n} ä.bin`), randomFillSync(Buffer.alloc((n * 977) % 70_000)))
  }
  for (let n = 0; n * chunkBytes * 16 < bulkBytes; n++) {
    writeFileSync(join(directory, 'deep', `bulk-${n}`), randomFillSync(Buffer.alloc(chunkBytes * 16)))
  }
  const sparse = openSync(join(directory, 'deep', 'er', 'sparse'), 'w')
  writeSync(sparse, 'at the end', 24 << 20)
  closeSync(sparse)
  writeFileSync(join(directory, 'empty'), '')
  symlinkSync('../empty', join(directory, 'deep', 'link'))
  linkSync(join(directory, 'deep', 'bulk-0'), join(directory, 'deep', 'er', 'still', 'hard-link'))
  return directory
}

export async function anExt4Image(file: string, tree: string, sizeBytes: number): Promise<string> {
  await run('mke2fs', ['-q', '-t', 'ext4', '-d', tree, '-L', 'ankole', file, `${sizeBytes / 1024}k`])
  return file
}

/** Every name under a directory with what it holds, for one comparison. */
export function contents(directory: string, under = ''): Record<string, string> {
  const all: Record<string, string> = {}
  for (const name of readdirSync(join(directory, under)).sort()) {
    const path = join(under, name)
    if (path === 'lost+found') continue
    const stat = lstatSync(join(directory, path))
    if (stat.isDirectory()) Object.assign(all, { [path]: 'directory' }, contents(directory, path))
    else if (stat.isSymbolicLink()) all[path] = `link to ${readlinkSync(join(directory, path))}`
    else
      all[path] = createHash('sha256')
        .update(readFileSync(join(directory, path)))
        .digest('hex')
  }
  return all
}
