// Replicas as directories: those of Longhorn's that become volumes here, and volumes that become such a directory. The
// command works on the files by itself: so it is given where they are.
import { access, constants, mkdir, realpath, rm, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Command, Option } from 'commander'
import { AnkoleError, messageOf } from '../api/errors.js'
import type { DeletionView, NodeList, SnapshotList, VolumeView } from '../api/index.js'
import {
  checkDirectory,
  copyDirectory,
  exportDirectory,
  findOpener,
  prepareDirectory,
  refuseFaulty,
  snapshotsIn,
  type Doing,
} from '../longhorn/index.js'
import { checkName, formatBytes } from '../manager/volume-spec.js'
import { longhornFaults, type LonghornFault, type LonghornReport } from '../native/index.js'
import type { CacheMode } from '../store/index.js'
import { Client } from './client.js'
import { aCommand, timeoutOption, volumePath, type Shared, type Waiting } from './command.js'
import { interruptible } from './interrupt.js'
import { print, printJson, table } from './output.js'
import { durationText, reportProgress, type ProgressReport } from './progress.js'

export function replicaCommand(): Command {
  const replica = new Command('replica').description('Adopt replica directories of Longhorn, and export such ones')
  replica.addCommand(adoptCommand())
  replica.addCommand(exportCommand())
  return replica
}

// ---------------------------------------------------------------------------------------------------- adopt

interface AdoptOptions extends Waiting {
  check?: true
  copy?: true
  disk?: string
  backingFile?: string
  accept: LonghornFault[]
  cache: CacheMode
  checksums: boolean
}

function adoptCommand(): Command {
  return aCommand('adopt', 'Make a volume of a replica directory of Longhorn; read-only until that is confirmed')
    .argument('<directory>', 'of a detached volume, on this machine; of several replicas the one to be trusted')
    .argument('[name]', 'of the volume: 1 to 63 lower-case letters, digits and hyphens')
    .option('--check', 'only say what is in it, and what speaks against it; nothing is changed')
    .option('--copy', 'copy it first, to the disk; else the directory itself is moved there')
    .option('--disk <id>', 'where the replica is to be; one on the file system of the directory if not given')
    .option('--backing-file <file>', 'the raw image that the volume stands on, where it is not where Longhorn had it')
    .addOption(
      new Option('--accept <fault>', 'take it although it was not closed, was being rebuilt, or has an error noted')
        .choices(longhornFaults)
        .default([] as LonghornFault[], 'none')
        .argParser(collectFault),
    )
    .addOption(
      new Option('--cache <mode>', 'how the replica is written: through the page cache, or O_DIRECT')
        .choices(['buffered', 'direct'] satisfies CacheMode[])
        .default('buffered'),
    )
    .option('--no-checksums', 'keep no checksums on disk')
    .addOption(timeoutOption())
    .addHelpText(
      'after',
      `
First detach the volume in Longhorn, and let nothing attach it there again. The volume has one replica. It is served
read-only, and no file of Longhorn's is changed in what it holds: look at it, then confirm that it may be written to, or
delete the volume, which gives the directory back (--copy: deletes the copy).

Examples:
  ankole replica adopt /var/lib/longhorn/replicas/pvc-1-r-0a1b2c3d --check
  ankole replica adopt /var/lib/longhorn/replicas/pvc-1-r-0a1b2c3d data
  ankole volume attach data
  ankole volume detach data
  ankole volume update data --read-write`,
    )
    .action(async (directory: string, name: string | undefined, _: object, command: Command) => {
      const options = command.optsWithGlobals<AdoptOptions>()
      if (options.check) {
        await check(directory, options)
        return
      }
      if (name === undefined) command.error('error: say what the volume is to be called, or --check')
      await interruptible(`The adoption of ${directory}`, (signal) => adopt(directory, name, options, signal))
    })
}

function collectFault(value: string, before: LonghornFault[]): LonghornFault[] {
  const fault = longhornFaults.find((known) => known === value)
  if (fault === undefined) {
    throw new AnkoleError('invalid-argument', `--accept takes ${longhornFaults.join(', ')}, not ${value}.`)
  }
  return [...before, fault]
}

async function look(directory: string, { copy, backingFile }: AdoptOptions): Promise<LonghornReport> {
  const path = await realpath(directory).catch((error: unknown) => {
    throw new AnkoleError('file-error', `${directory} cannot be adopted: ${messageOf(error)}.`)
  })
  const report = await checkDirectory({
    ...{ directory: path, copied: copy ?? false },
    ...(backingFile === undefined ? {} : { backingFile: resolve(backingFile) }),
  })
  const opener = await findOpener(path)
  if (opener === undefined) return report
  const message = `process ${opener.pid} has ${opener.file} open: the replica is in use; detach the volume in Longhorn first`
  return { ...report, problems: [...report.problems, { kind: '', message }] }
}

async function check(directory: string, options: AdoptOptions): Promise<void> {
  const report = await look(directory, options)
  if (options.json) printJson(report)
  else print(reportText(report))
  const { accept } = options
  if (report.problems.some(({ kind }) => kind === '' || !accept.includes(kind))) process.exitCode = 1
}

export function reportText({ directory, sizeBytes, chain, layers, revision, notes, problems }: LonghornReport): string {
  const rows = layers.map((layer, index) => [
    layer.layer === '' ? '(head)' : layer.layer,
    index < chain ? 'yes' : 'branch',
    layer.removed ? 'removed' : layer.userCreated ? 'user' : '',
    formatBytes(layer.sizeBytes),
    formatBytes(layer.allocatedBytes),
    formatBytes(layer.unwrittenBytes),
    layer.created,
  ])
  const counter = revision === null ? 'no revision counter' : `revision ${revision}`
  return [
    `${directory}: a volume of ${formatBytes(sizeBytes)}, ${chain} layers deep, ${counter}`,
    table(['LAYER', 'IN CHAIN', 'SNAPSHOT', 'SIZE', 'ON DISK', 'UNWRITTEN', 'CREATED'], rows),
    ...notes.map((note) => `Note: ${note}.`),
    ...problems.map(({ kind, message }) => `Problem${kind === '' ? '' : ` (--accept ${kind})`}: ${message}.`),
    problems.length === 0 ? 'It can be adopted.' : 'It is not adopted as it is.',
  ].join('\n')
}

async function adopt(directory: string, name: string, options: AdoptOptions, signal: AbortSignal): Promise<void> {
  checkName(name)
  const { url, accept } = options
  const copy = options.copy ?? false
  const client = new Client(url)
  if (await isUnderWay(client, directory, name, options)) return
  const report = await look(directory, options)
  refuseFaulty(report, accept)
  const disk = await diskFor(client, report.directory, options)
  const progress = reportProgress(`Adopting ${report.directory}`, options.json)
  const adopted = copy ? join(disk.directory, 'adopting', name) : report.directory
  try {
    const doing = doingOf(progress, report, signal)
    const files = options.backingFile === undefined ? {} : { backingFile: resolve(options.backingFile) }
    if (copy) {
      await mkdir(join(disk.directory, 'adopting'), { recursive: true, mode: 0o700 })
      progress.stage(`Copying ${report.directory}`)
      await copyDirectory({ directory: report.directory, target: adopted, accept, ...files }, doing)
    }
    progress.stage(`Adopting ${report.directory}`)
    await prepareDirectory({ directory: adopted, accept, copied: copy, ...files }, doing)
    signal.throwIfAborted()
    const volume = await create(client, name, adopted, disk.id, report, options)
    progress.end()
    tell(volume, report, options, progress.seconds())
  } catch (error) {
    // Who did not answer may be at work on it.
    if (copy && error instanceof AnkoleError) await rm(adopted, { recursive: true, force: true })
    throw error
  } finally {
    progress.end()
  }
}

/** Of a command that was killed the manager goes on with what it was asked for. Throws already-exists. */
async function isUnderWay(client: Client, directory: string, name: string, options: AdoptOptions): Promise<boolean> {
  let volume: VolumeView
  try {
    volume = await client.get<VolumeView>(volumePath(name))
  } catch (error) {
    if (error instanceof AnkoleError && error.code === 'not-found') return false
    throw error
  }
  const { adopted, state, message } = volume
  if (adopted?.directory !== resolve(directory)) {
    throw new AnkoleError('already-exists', `Volume ${name} exists already.`)
  }
  if (state === 'creating' || state === 'faulted') {
    throw new AnkoleError('unavailable', `Volume ${name} is being made of ${directory}: ${message}.`)
  }
  if (options.json) print(JSON.stringify({ event: 'done', volume }))
  else printWhatNext(volume, false)
  return true
}

function tell(volume: VolumeView, report: LonghornReport, { json, copy }: AdoptOptions, seconds: number): void {
  if (json) {
    print(JSON.stringify({ event: 'done', volume, report, seconds }))
    return
  }
  const snapshots = snapshotsIn(report).length
  const { name, sizeBytes } = volume
  print(`Volume ${name} is adopted, read-only: ${formatBytes(sizeBytes)}, with ${snapshots} snapshots.`)
  for (const note of report.notes) print(`Note: ${note}.`)
  printWhatNext(volume, copy ?? false)
}

function printWhatNext({ name }: VolumeView, copied: boolean): void {
  print(`Look at it:                 ankole volume attach ${name}`)
  print(`Let it be written to:       ankole volume detach ${name}; ankole volume update ${name} --read-write`)
  print(`${copied ? 'Delete the copy:           ' : 'Give the directory back:   '} ankole volume delete ${name}`)
}

function doingOf(progress: ProgressReport, { layers }: LonghornReport, signal: AbortSignal): Doing {
  const totalBytes = layers.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0)
  return {
    signal,
    onBytes: (bytes) => {
      progress.update({ doneBytes: Math.min(bytes, totalBytes), totalBytes })
    },
  }
}

/** On failure the volume goes again, and the directory stays, or comes back, where it was. */
async function create(
  client: Client,
  name: string,
  directory: string,
  disk: string,
  report: LonghornReport,
  { cache, checksums, copy, accept, timeout: timeoutSeconds }: AdoptOptions,
): Promise<VolumeView> {
  const adopt = { directory, disk, copied: copy ?? false, accept, snapshots: snapshotsIn(report) }
  const body = { name, size: report.volumeBytes, numberOfReplicas: 1, cache, checksums, adopt, timeoutSeconds }
  try {
    return await client.post<VolumeView>('/v1/volumes', body)
  } catch (error) {
    const isMade = error instanceof AnkoleError && (error.code === 'volume-faulted' || error.code === 'timed-out')
    if (!isMade) throw error
    try {
      await client.delete<DeletionView>(`${volumePath(name)}?timeoutSeconds=${timeoutSeconds}`)
    } catch (second) {
      const left = `What was made of volume ${name} may still be there: ankole volume delete ${name}`
      throw new AnkoleError(error.code, `${error.message} ${left} (${messageOf(second)})`, { cause: error })
    }
    throw error
  }
}

interface FoundDisk {
  id: string
  directory: string
}

/** A directory is moved within a file system, and copied to any. */
async function diskFor(client: Client, directory: string, { disk, copy }: AdoptOptions): Promise<FoundDisk> {
  const { nodes } = await client.get<NodeList>('/v1/nodes')
  const disks = nodes.flatMap(({ disks }) => disks).filter(({ id }) => disk === undefined || id === disk)
  if (disk !== undefined && disks.length === 0) {
    throw new AnkoleError('not-found', `There is no disk ${JSON.stringify(disk)}.`)
  }
  const { dev } = await stat(directory)
  const found: (FoundDisk & { freeBytes: number })[] = []
  for (const { id, directory, state, freeBytes } of disks) {
    const there = await stat(directory).catch(() => undefined)
    if (there === undefined || state !== 'ready') continue
    if (copy || there.dev === dev) found.push({ id, directory, freeBytes })
  }
  const [best] = found.sort((a, b) => b.freeBytes - a.freeBytes)
  if (best !== undefined) return best
  const which = disk === undefined ? 'No disk of Ankole that is ready' : `Disk ${disk} is not ready, or not`
  throw new AnkoleError(
    'cannot-place',
    copy
      ? `${which} is on this machine.`
      : `${which} is on the file system of ${directory}: adopt it with --copy, or add a disk there.`,
  )
}

// ---------------------------------------------------------------------------------------------------- export

interface ExportOptions extends Shared {
  longhorn: true
  replica?: string
  snapshot?: string
  anyLength?: true
}

function exportCommand(): Command {
  return aCommand('export', 'Write a replica of a detached volume as a directory that Longhorn opens')
    .argument('<name>')
    .argument('<directory>', 'to be made, on this machine, which has to be where the replica is')
    .requiredOption('--longhorn', "in the form of Longhorn's v1 replicas; there is no other")
    .option('--replica <id>', 'which; the first that is up to date if not given')
    .option('--snapshot <name>', 'what a snapshot holds, instead of what the volume holds now')
    .option('--any-length', 'also where the chain is longer than Longhorn opens')
    .addHelpText(
      'after',
      `
Longhorn knows no masks: what hides the layers below is written out as zeros. It opens chains of 250 layers at the most;
where there are more it is said at which. What is copied is verified by its checksums.

Examples:
  ankole replica export data /var/lib/longhorn/replicas/pvc-1-r-0a1b2c3d --longhorn
  ankole replica export data /backup/data-monday --longhorn --snapshot monday`,
    )
    .action(async (name: string, directory: string, _: object, command: Command) => {
      const options = command.optsWithGlobals<ExportOptions>()
      await interruptible(`The export of volume ${name}`, (signal) => exportReplica(name, directory, options, signal))
    })
}

async function exportReplica(
  name: string,
  directory: string,
  options: ExportOptions,
  signal: AbortSignal,
): Promise<void> {
  const { url, json, anyLength = false } = options
  const client = new Client(url)
  const volume = await client.get<VolumeView>(volumePath(name))
  if (volume.state !== 'detached') {
    throw new AnkoleError(
      'busy',
      `Volume ${name} cannot be exported: it is ${volume.state}. Detach it: ankole volume detach ${name}`,
    )
  }
  const replica = await replicaOf(volume, options.replica)
  const { snapshots } = await client.get<SnapshotList>(`${volumePath(name)}/snapshots`)
  const names = snapshots.flatMap(({ name, layer, state }) =>
    layer !== null && state === 'ready' ? [[layer, name]] : [],
  )
  const snapshot = options.snapshot === undefined ? undefined : layerOf(volume, options.snapshot, snapshots)
  const progress = reportProgress(`Exporting volume ${name}`, json)
  progress.stage(`Exporting volume ${name}`)
  try {
    const exported = await exportDirectory(
      {
        ...{ directory: replica.directory, target: resolve(directory), anyLength },
        names: Object.fromEntries(names) as Record<string, string>,
        ...(snapshot === undefined ? {} : { snapshot }),
      },
      {
        signal,
        onBytes: (doneBytes) => {
          progress.update({ doneBytes, totalBytes: Math.max(doneBytes, volume.sizeBytes) })
        },
      },
    )
    const seconds = progress.seconds()
    progress.end()
    if (json) {
      print(JSON.stringify({ event: 'done', volume: name, replica: replica.id, ...exported, seconds }))
      return
    }
    const { copiedBytes, maskedBytes, chain, notes } = exported
    const zeros = maskedBytes === 0 ? '' : `, and ${formatBytes(maskedBytes)} of zeros for masks`
    const layers = chain === 1 ? '1 layer' : `${chain} layers`
    print(
      `Volume ${name} is exported to ${exported.directory}: ${layers}, ${formatBytes(copiedBytes)}${zeros}, in ${durationText(seconds)}.`,
    )
    for (const note of notes) print(`Note: ${note}.`)
  } finally {
    progress.end()
  }
}

async function replicaOf(
  { name, replicas }: VolumeView,
  wanted: string | undefined,
): Promise<{ id: string; directory: string }> {
  const named = replicas.filter(({ id }) => wanted === undefined || id === wanted)
  if (named.length === 0) throw new AnkoleError('not-found', `Volume ${name} has no replica ${wanted ?? ''}.`)
  const good = named.filter(({ state }) => state === 'ready' || state === 'member')
  if (good.length === 0) {
    const states = named.map(({ id, state }) => `${id} is ${state}`).join(', ')
    throw new AnkoleError('unavailable', `Volume ${name} cannot be exported: no replica is up to date (${states}).`)
  }
  for (const { id, directory } of good) {
    try {
      await access(directory, constants.R_OK)
      return { id, directory }
    } catch {
      // Of another machine, or another user.
    }
  }
  const where = good.map(({ directory }) => directory).join(', ')
  throw new AnkoleError('file-error', `Volume ${name} cannot be exported: this process cannot read ${where}.`)
}

function layerOf({ name }: VolumeView, wanted: string, snapshots: SnapshotList['snapshots']): string {
  const snapshot = snapshots.find(({ name }) => name === wanted)
  if (snapshot?.layer != null && snapshot.state === 'ready') return snapshot.layer
  const why = snapshot === undefined ? 'it has none of that name' : `it is ${snapshot.state}`
  throw new AnkoleError('not-found', `Snapshot ${wanted} of volume ${name} cannot be exported: ${why}.`)
}
