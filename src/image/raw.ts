// Raw images: the bytes of the disk, and holes where it reads as zeros.
import type { FileHandle } from 'node:fs/promises'
import { dataIn, inLanes, piecesOf, type Piece } from './lanes.js'
import type { BlockClient } from './nbd-client.js'
import { fileError } from './file.js'
import { refused } from './refusal.js'

export interface CopyOptions {
  signal: AbortSignal
  /** From the beginning, holes too. */
  onBytes: (bytes: number) => void
}

/** Onto a volume that reads as zeros. Throws invalid-image where the file becomes shorter meanwhile. */
export async function rawToVolume(
  { path, file, fileBytes }: { path: string; file: FileHandle; fileBytes: number },
  volume: BlockClient,
  { signal, onBytes }: CopyOptions,
): Promise<void> {
  await inLanes(piecesOf(0, fileBytes), signal, async ({ offsetBytes, lengthBytes }, buffer) => {
    await readWhole({ path, file }, buffer, offsetBytes)
    for (const { at, part } of dataIn(buffer)) await volume.write(offsetBytes + at, part)
    onBytes(lengthBytes)
  })
}

async function readWhole(
  { path, file }: { path: string; file: FileHandle },
  buffer: Buffer,
  offsetBytes: number,
): Promise<void> {
  for (let filled = 0; filled < buffer.length;) {
    const { bytesRead } = await file
      .read(buffer, filled, buffer.length - filled, offsetBytes + filled)
      .catch((error: unknown) => {
        throw fileError(`The image ${path} cannot be read`, error)
      })
    if (bytesRead === 0) throw refused(path, 'it has become shorter')
    filled += bytesRead
  }
}

/** Onto a volume that reads as zeros, and is no smaller. */
export async function volumeToVolume(
  from: BlockClient,
  to: BlockClient,
  { signal, onBytes }: CopyOptions,
): Promise<void> {
  await inLanes(dataOf(from, onBytes), signal, async ({ offsetBytes, lengthBytes }, buffer) => {
    await from.read(offsetBytes, buffer)
    for (const { at, part } of dataIn(buffer)) await to.write(offsetBytes + at, part)
    onBytes(lengthBytes)
  })
}

/** Into a file that is empty. */
export async function volumeToRaw(
  volume: BlockClient,
  { path, file }: { path: string; file: FileHandle },
  { signal, onBytes }: CopyOptions,
): Promise<void> {
  const written = async (work: Promise<unknown>): Promise<void> => {
    await work.catch((error: unknown) => {
      throw fileError(`The image ${path} cannot be written`, error)
    })
  }
  await written(file.truncate(volume.sizeBytes))
  await inLanes(dataOf(volume, onBytes), signal, async ({ offsetBytes, lengthBytes }, buffer) => {
    await volume.read(offsetBytes, buffer)
    for (const { at, part } of dataIn(buffer)) await written(writeWhole(file, part, offsetBytes + at))
    onBytes(lengthBytes)
  })
}

/** A full disk may take a part of it, and refuse the rest. */
async function writeWhole(file: FileHandle, bytes: Buffer, offsetBytes: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offsetBytes + done)
    done += bytesWritten
  }
}

async function* dataOf(volume: BlockClient, onHole: (bytes: number) => void): AsyncGenerator<Piece, void> {
  for (let at = 0; at < volume.sizeBytes;) {
    for (const { lengthBytes, zero } of await volume.extents(at, volume.sizeBytes - at)) {
      if (zero) onHole(lengthBytes)
      else yield* piecesOf(at, lengthBytes)
      at += lengthBytes
    }
  }
}
