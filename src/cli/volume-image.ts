// Volumes from images, and images of volumes. The command copies by itself, from or to the volume's NBD server: so it is
// given where that can be reached and where the file is.
import { stat } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { Option, type Command } from 'commander'
import { AnkoleError } from '../api/errors.js'
import type { ActivityView, ReadableSnapshotView, SnapshotView, VolumeView } from '../api/index.js'
import {
  copyIn,
  copyOut,
  imageFormats,
  needQemuImg,
  openImage,
  TargetFile,
  type Image,
  type ImageFormat,
} from '../image/index.js'
import { checkName, formatBytes, parseSize, volumeSizeFor } from '../manager/volume-spec.js'
import { Client } from './client.js'
import { aCommand, timeoutOption, volumePath, type Waiting } from './command.js'
import { addCreationOptions, creationBody, printHowToAttach, printMade, type CreationOptions } from './creation.js'
import { interruptible } from './interrupt.js'
import { print } from './output.js'
import { durationText, reportProgress } from './progress.js'
import { everyLook, filled, lookMs, snapshotPath, whileAttached } from './transfers.js'

interface ExportOptions extends Waiting {
  format?: ImageFormat
  force?: true
  live?: true
  snapshot?: string
}

interface ImportOptions extends CreationOptions {
  format?: ImageFormat
  size?: string
}

/** An engine on a busy machine may be late with its answer. */
const activityTries = 5

export function exportCommand(): Command {
  return aCommand('export', 'Write what a volume holds to an image; a detached one is attached for that alone')
    .argument('<name>')
    .argument('<file>', 'on this machine, which has to be where the volume is attached')
    .addOption(new Option('--format <format>', 'by the ending of the file if not given').choices(imageFormats))
    .option('--force', 'replace a file that is there, when the image is whole')
    .option('--snapshot <name>', 'what the volume held when this was taken, whatever is written to it meanwhile')
    .option('--live', 'also of a volume that is written to meanwhile: the image is then of no one instant')
    .addOption(timeoutOption('how long to wait until it is attached, and detached'))
    .addHelpText(
      'after',
      `
Where nobody writes to the volume meanwhile, the image is what it holds: detach it, or freeze the file system on it.
An export that finds that somebody did fails, unless --live is given. A snapshot does not change: with --snapshot it is
of no matter who writes. qcow2 needs qemu-img (Debian: qemu-utils).
With --json it prints a line of JSON each second, and one at the end.

Examples:
  ankole volume export data data.raw
  ankole volume export data monday.qcow2 --snapshot monday
  ankole volume export data /backup/data.qcow2 --force`,
    )
    .action(async (name: string, file: string, _: object, command: Command) => {
      const options = command.optsWithGlobals<ExportOptions>()
      await interruptible(`The export of volume ${name}`, (signal) => exportVolume(name, file, options, signal))
    })
}

export function importCommand(): Command {
  const command = aCommand('import', 'Make a new volume of an image')
    .argument('<file>', 'raw or qcow2, on this machine, which has to be where the volume is attached')
    .argument('<name>', '1 to 63 lower-case letters, digits and hyphens')
    .addOption(new Option('--format <format>', 'by the content of the file if not given').choices(imageFormats))
    .option('--size <size>', 'more than the image has, such as 20GiB; as large as its disk if not given')
  return addCreationOptions(command)
    .addHelpText(
      'after',
      `
Nobody can attach the volume before all of the image is in it. What fails or is interrupted leaves no volume.
qcow2 needs qemu-img (Debian: qemu-utils). With --json it prints a line of JSON each second, and one at the end.

Examples:
  ankole volume import debian-12-genericcloud-amd64.qcow2 root --size 20GiB
  ankole volume import disk.raw data --replicas 2`,
    )
    .action(async (file: string, name: string, _: object, command: Command) => {
      const options = command.optsWithGlobals<ImportOptions>()
      await interruptible(`The import of volume ${name}`, (signal) => importVolume(file, name, options, signal))
    })
}

// ---------------------------------------------------------------------------------------------------- export

async function exportVolume(name: string, file: string, options: ExportOptions, signal: AbortSignal): Promise<void> {
  const { url, json, timeout, force = false, live = false, snapshot } = options
  if (snapshot !== undefined && live) {
    throw new AnkoleError('invalid-argument', '--live is of no use with --snapshot: a snapshot does not change.')
  }
  const format = options.format ?? (file.toLowerCase().endsWith('.qcow2') ? 'qcow2' : 'raw')
  const client = new Client(url)
  // Before a file is made for what is not there.
  await client.get<VolumeView | SnapshotView>(snapshot === undefined ? volumePath(name) : snapshotPath(name, snapshot))
  if (format === 'qcow2') await needQemuImg(signal)
  const what = snapshot === undefined ? `volume ${name}` : `snapshot ${snapshot} of volume ${name}`
  const progress = reportProgress(`Exporting ${what}`, json)
  const target = await TargetFile.create(file, { replace: force })
  try {
    const exported = await whileAttached({ client, name, timeout, signal, progress }, async ({ nbd }) => {
      const copy = (uri: string, signal: AbortSignal) => {
        progress.stage(`Exporting ${what}`)
        return copyOut(uri, target, format, { signal, onProgress: (now) => progress.update(now) })
      }
      const copied =
        snapshot === undefined
          ? await copiedUnchanged(new ChangeGuard(client, name, live), nbd.uri, signal, copy)
          : await copiedSnapshot(client, snapshotPath(name, snapshot), signal, copy)
      progress.stage(`Writing ${target.path} out to its disk`)
      await target.publish()
      return copied
    })
    const fileBytes = (await stat(target.path)).blocks * 512
    const seconds = progress.seconds()
    progress.end()
    if (json) {
      const of = { volume: name, ...(snapshot === undefined ? {} : { snapshot }) }
      const done = { event: 'done', ...of, file: target.path, format, ...exported, fileBytes, seconds }
      print(JSON.stringify(done))
    } else {
      const size = `${formatBytes(exported.sizeBytes)}, which take up ${formatBytes(fileBytes)}`
      const subject = `${what.slice(0, 1).toUpperCase()}${what.slice(1)}`
      print(`${subject} is exported to ${target.path}: ${size}, in ${durationText(seconds)}.`)
      for (const note of exported.notes) print(`Note: ${note}.`)
    }
  } finally {
    progress.end()
    await target.end()
  }
}

interface Copied {
  sizeBytes: number
  notes: string[]
}

type Copy = (uri: string, signal: AbortSignal) => Promise<{ sizeBytes: number }>

async function copiedUnchanged(guard: ChangeGuard, uri: string, signal: AbortSignal, copy: Copy): Promise<Copied> {
  const note = await guard.begin()
  const { sizeBytes } = await guard.during(signal, (signal) => copy(uri, signal))
  return { sizeBytes, notes: [...note, ...guard.notes] }
}

/** The engine serves it as long as somebody reads it, and it is not deleted meanwhile. */
async function copiedSnapshot(client: Client, path: string, signal: AbortSignal, copy: Copy): Promise<Copied> {
  const { nbd } = await client.post<ReadableSnapshotView>(`${path}/read`, {})
  const { sizeBytes } = await copy(nbd.uri, signal)
  return { sizeBytes, notes: [] }
}

/** Tells whether the content of a volume was changed since. */
class ChangeGuard {
  readonly notes: string[] = []
  readonly #client: Client
  readonly #name: string
  readonly #live: boolean
  #before: ActivityView | undefined

  constructor(client: Client, name: string, live: boolean) {
    this.#client = client
    this.#name = name
    this.#live = live
  }

  /** Says what the user should know of it. */
  async begin(): Promise<string[]> {
    this.#before = await this.#look()
    const clients = this.#before.nbdConnections + this.#before.iscsiSessions
    if (clients === 0) return []
    const are = clients === 1 ? '1 client was' : `${clients} clients were`
    return [`${are} connected: what they had not written yet is not in the image`]
  }

  /** Ends `work` with volume-changed as soon as it is seen to be in vain. */
  async during<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const ending = new AbortController()
    const either = AbortSignal.any([signal, ending.signal])
    const done = new AbortController()
    if (!this.#live) {
      void everyLook(done.signal, async () => {
        const now = await this.#look()
        if (this.#isChanged(now)) ending.abort(this.#changed())
      })
    }
    try {
      const result = await work(either)
      if (this.#isChanged(await this.#look())) {
        if (!this.#live) throw this.#changed()
        this.notes.push('it was written to meanwhile: the image is of no one instant')
      }
      return result
    } finally {
      done.abort()
    }
  }

  #isChanged({ changes, epoch }: ActivityView): boolean {
    const before = this.#before
    return changes !== before?.changes || JSON.stringify(epoch) !== JSON.stringify(before.epoch)
  }

  #changed(): AnkoleError {
    return new AnkoleError(
      'volume-changed',
      `Volume ${this.#name} was written to while it was exported: the image would be of no one instant.`,
    )
  }

  async #look(): Promise<ActivityView> {
    for (let tries = 1; ; ++tries) {
      try {
        return await this.#client.get<ActivityView>(`${volumePath(this.#name)}/activity`)
      } catch (error) {
        const isLate = error instanceof AnkoleError && error.code === 'unavailable'
        if (!isLate || tries === activityTries) throw error
        await sleep(lookMs)
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------- import

async function importVolume(file: string, name: string, options: ImportOptions, signal: AbortSignal): Promise<void> {
  const { url, json, format } = options
  checkName(name)
  const body = creationBody(options)
  const client = new Client(url)
  const progress = reportProgress(`Importing volume ${name}`, json)
  progress.stage(`Looking at ${file}`)
  try {
    const image = await openImage(file, format, signal)
    try {
      const size = sizeFor(image, options.size)
      const copy = (uri: string) => copyIn(image, uri, { signal, onProgress: (now) => progress.update(now) })
      const volume = await filled({ client, name, progress, signal, body: { ...body, size }, copy })
      const seconds = progress.seconds()
      progress.end()
      const notes = [...image.notes, ...roundingNotes(image, volume, options.size)]
      if (json) {
        const { path, format, virtualBytes } = image
        print(JSON.stringify({ event: 'done', volume, file: path, format, virtualBytes, seconds, notes }))
      } else {
        printMade(volume, `imported from ${image.path} in ${durationText(seconds)}`)
        for (const note of notes) print(`Note: ${note}.`)
        printHowToAttach(volume)
      }
    } finally {
      await image.file.close()
    }
  } finally {
    progress.end()
  }
}

/** Throws invalid-size. */
function sizeFor({ path, virtualBytes }: Image, wanted: string | undefined): number {
  const size = parseSize(wanted ?? volumeSizeFor(virtualBytes))
  if (size >= virtualBytes) return size
  const has = `${formatBytes(virtualBytes)} (${virtualBytes} bytes)`
  throw new AnkoleError(
    'invalid-size',
    `The disk in ${path} has ${has}: a volume of ${wanted ?? size} does not hold it.`,
  )
}

function roundingNotes({ virtualBytes }: Image, { sizeBytes }: VolumeView, wanted: string | undefined): string[] {
  if (wanted !== undefined || sizeBytes === virtualBytes) return []
  return [`the disk in the image has ${virtualBytes} bytes, and the volume ${sizeBytes}: the rest reads as zeros`]
}
