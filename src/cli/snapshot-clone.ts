// Volumes from snapshots. A linked clone is the manager's to make; a full one is copied by the command itself, from the
// one volume's NBD server to the other's.
import type { Command } from 'commander'
import { AnkoleError } from '../api/errors.js'
import type { ReadableSnapshotView, SnapshotView, VolumeView } from '../api/index.js'
import { copyAcross } from '../image/index.js'
import { checkName, parseSize } from '../manager/volume-spec.js'
import { readChap } from './chap.js'
import { Client } from './client.js'
import { aCommand, volumePath } from './command.js'
import { addCreationOptions, printHowToAttach, printMade, type CreationOptions } from './creation.js'
import { interruptible } from './interrupt.js'
import { print, printJson, told } from './output.js'
import { durationText, reportProgress } from './progress.js'
import { filled, snapshotPath, whileAttached } from './transfers.js'

interface CloneOptions extends CreationOptions {
  full?: true
  size?: string
}

/** What a linked clone has as its source has it. */
const ofFullOnes = {
  replicas: '--replicas',
  cache: '--cache',
  checksums: '--no-checksums',
  physicalBlockSize: '--physical-block-size',
  size: '--size',
} as const

export function cloneCommand(): Command {
  const command = aCommand('clone', 'Make a new volume of a snapshot: with its files at once, or by copying')
    .argument('<volume>')
    .argument('<snapshot>')
    .argument('<name>', 'of the new volume: 1 to 63 lower-case letters, digits and hyphens')
    .option('--full', 'copy everything: the clone has nothing in common with the volume')
    .option('--size <size>', 'with --full: more than the snapshot has, such as 20GiB')
  return addCreationOptions(command)
    .addHelpText(
      'after',
      `
A linked clone is there at once and takes no space: its replicas are on the disks of the volume's, and have the
snapshot's files. As long as it is there the snapshot cannot be deleted; the volume can.
A full one may be anywhere, and of another size; what is not given is as the volume has it. It is copied by this command,
which has to run where the volume is attached: one that is detached is attached for that alone. What fails or is
interrupted leaves no volume. With --json it prints a line of JSON each second, and one at the end.
Without --chap-user the clone has the volume's login.

Examples:
  ankole snapshot clone data monday data-test
  ankole snapshot clone data monday data-2 --full --size 20GiB --replicas 2`,
    )
    .action(async (volume: string, snapshot: string, name: string, _: object, command: Command) => {
      const options = command.optsWithGlobals<CloneOptions>()
      checkName(name)
      const isGiven = (option: string): boolean => command.getOptionValueSource(option) === 'cli'
      if (options.full !== true) {
        refuseOfFull(isGiven)
        await cloneLinked({ volume, snapshot, name }, options)
        return
      }
      await interruptible(`The cloning of volume ${name}`, (signal) =>
        cloneFull({ volume, snapshot, name }, options, isGiven, signal),
      )
    })
}

interface Names {
  volume: string
  snapshot: string
  name: string
}

/** Throws invalid-argument. */
function refuseOfFull(isGiven: (option: string) => boolean): void {
  const wrong = Object.entries(ofFullOnes).find(([option]) => isGiven(option))
  if (wrong === undefined) return
  throw new AnkoleError('invalid-argument', `${wrong[1]} needs --full: a linked clone is as its volume is.`)
}

async function cloneLinked({ volume, snapshot, name }: Names, options: CloneOptions): Promise<void> {
  const { url, json, timeout } = options
  const chap = readChap(options)
  const body = { name, timeoutSeconds: timeout, ...(chap === undefined ? {} : { chap }) }
  const cloning = new Client(url).post<VolumeView>(`${snapshotPath(volume, snapshot)}/clone`, body)
  const made = await told(json, `Snapshot ${snapshot} of volume ${volume} is being cloned to ${name}`, cloning)
  if (json) printJson(made)
  else {
    printMade(made, `a linked clone of snapshot ${snapshot} of volume ${volume}`)
    printHowToAttach(made)
  }
}

async function cloneFull(
  { volume, snapshot, name }: Names,
  options: CloneOptions,
  isGiven: (option: string) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const { url, json, timeout } = options
  const client = new Client(url)
  const body = fullBody(
    await client.get<VolumeView>(volumePath(volume)),
    await client.get<SnapshotView>(snapshotPath(volume, snapshot)),
    options,
    isGiven,
  )
  const progress = reportProgress(`Cloning snapshot ${snapshot} of volume ${volume} to ${name}`, json)
  try {
    const made = await whileAttached({ client, name: volume, timeout, signal, progress }, () => {
      const copy = async (uri: string): Promise<void> => {
        // Right before: what nobody reads for 10 s is not served any more.
        const { nbd } = await client.post<ReadableSnapshotView>(`${snapshotPath(volume, snapshot)}/read`, {})
        await copyAcross(nbd.uri, uri, { signal, onProgress: (now) => progress.update(now) })
      }
      return filled({ client, name, progress, signal, body, copy })
    })
    const seconds = progress.seconds()
    progress.end()
    if (json) print(JSON.stringify({ event: 'done', volume: made, of: volume, snapshot, seconds }))
    else {
      const how = `a full clone of snapshot ${snapshot} of volume ${volume}, copied in ${durationText(seconds)}`
      printMade(made, how)
      printHowToAttach(made)
    }
  } finally {
    progress.end()
  }
}

/** Throws invalid-size. */
function fullBody(
  source: VolumeView,
  { name: snapshot, sizeBytes }: SnapshotView,
  options: CloneOptions,
  isGiven: (option: string) => boolean,
) {
  const chap = readChap(options)
  return {
    size: options.size === undefined ? sizeBytes : parseSize(options.size),
    numberOfReplicas: isGiven('replicas') ? options.replicas : source.numberOfReplicas,
    cache: isGiven('cache') ? options.cache : source.cache,
    checksums: isGiven('checksums') ? options.checksums : source.checksums,
    physicalBlockBytes: isGiven('physicalBlockSize') ? options.physicalBlockSize : source.physicalBlockBytes,
    copyOf: { volume: source.name, snapshot },
    timeoutSeconds: options.timeout,
    ...(chap === undefined ? {} : { chap }),
  }
}
