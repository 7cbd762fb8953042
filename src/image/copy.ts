// An image into a volume, or a volume into an image: over NBD, where the volume is served.
import { AnkoleError } from '../api/errors.js'
import { openSource, type SourceFile, type TargetFile } from './file.js'
import { examineImage, readImageBytes, type ImageFacts, type ImageFormat } from './format.js'
import { NbdClient, type NbdAddress } from './nbd-client.js'
import { checkQcow2, qcow2ToVolume, volumeToQcow2 } from './qemu-img.js'
import { checkNotTruncated } from './qcow2.js'
import { rawToVolume, volumeToRaw, volumeToVolume } from './raw.js'

export interface Image extends SourceFile, ImageFacts {}

/**
 * Opened, and found to be whole as far as can be told. The caller closes its `file`. Throws file-error, invalid-image,
 * missing-program, and the signal's reason.
 */
export async function openImage(name: string, format: ImageFormat | undefined, signal: AbortSignal): Promise<Image> {
  const source = await openSource(name)
  const { path, file, fileBytes } = source
  try {
    const facts = examineImage(await readImageBytes(path, file, fileBytes), format)
    if (facts.header !== undefined) {
      await checkNotTruncated(source, facts.header)
      await checkQcow2(path, signal)
    }
    return { ...source, ...facts }
  } catch (error) {
    await file.close()
    throw error
  }
}

export interface Progress {
  /** Of the disk, from its beginning or near it; holes too. */
  doneBytes: number
  totalBytes: number
}

export interface CopyOptions {
  signal: AbortSignal
  onProgress: (progress: Progress) => void
}

/** Onto a new volume, which reads as zeros; on stable storage when it resolves. */
export async function copyIn(image: Image, uri: string, options: CopyOptions): Promise<void> {
  const { path, virtualBytes, format } = image
  await withVolume(uri, options.signal, async (volume) => {
    if (volume.sizeBytes < virtualBytes) {
      throw new AnkoleError('invalid-size', `The volume at ${uri} has ${volume.sizeBytes} bytes, less than ${path}.`)
    }
    if (format === 'qcow2') await qcow2ToVolume(path, uri, shares(virtualBytes, options))
    else await rawToVolume(image, volume, counting(virtualBytes, options))
    await volume.flush()
    await image.checkUnchanged()
  })
}

/** Into a file that is empty. What is written to the volume meanwhile may be in it or not. */
export async function copyOut(
  uri: string,
  target: TargetFile,
  format: ImageFormat,
  options: CopyOptions,
): Promise<{ sizeBytes: number }> {
  return await withVolume(uri, options.signal, async (volume) => {
    const { sizeBytes } = volume
    if (format === 'qcow2') await volumeToQcow2(uri, target, shares(sizeBytes, options))
    else await volumeToRaw(volume, target, counting(sizeBytes, options))
    return { sizeBytes }
  })
}

/** From what does not change, as a snapshot, onto a new volume, which reads as zeros; on stable storage when it resolves. */
export async function copyAcross(from: string, to: string, options: CopyOptions): Promise<void> {
  await withVolume(from, options.signal, async (source) => {
    await withVolume(to, options.signal, async (target) => {
      if (target.sizeBytes < source.sizeBytes) {
        throw new AnkoleError('invalid-size', `The volume at ${to} has ${target.sizeBytes} bytes, less than ${from}.`)
      }
      await volumeToVolume(source, target, counting(source.sizeBytes, options))
      await target.flush()
    })
  })
}

async function withVolume<T>(uri: string, signal: AbortSignal, work: (volume: NbdClient) => Promise<T>): Promise<T> {
  signal.throwIfAborted()
  const volume = await connected(uri)
  const close = (): void => {
    volume.close()
  }
  signal.addEventListener('abort', close)
  try {
    return await work(volume)
  } catch (error) {
    signal.throwIfAborted() // It is why the connection was closed.
    throw error
  } finally {
    signal.removeEventListener('abort', close)
    close()
  }
}

async function connected(uri: string): Promise<NbdClient> {
  try {
    return await NbdClient.connect(addressOf(uri))
  } catch (error) {
    if (!(error instanceof AnkoleError && error.code === 'connection-lost')) throw error
    const where = 'Give the command on a machine that reaches this address: the one where the volume is attached.'
    throw new AnkoleError('connection-lost', `${error.message} ${where}`, { cause: error })
  }
}

function addressOf(uri: string): NbdAddress {
  const { hostname, port, pathname } = new URL(uri)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port), name: decodeURIComponent(pathname.slice(1)) }
}

function shares(totalBytes: number, { signal, onProgress }: CopyOptions) {
  return {
    signal,
    onProgress: (share: number) => {
      onProgress({ doneBytes: Math.floor(share * totalBytes), totalBytes })
    },
  }
}

function counting(totalBytes: number, { signal, onProgress }: CopyOptions) {
  let doneBytes = 0
  return {
    signal,
    onBytes: (bytes: number) => {
      doneBytes += bytes
      onProgress({ doneBytes, totalBytes })
    },
  }
}
