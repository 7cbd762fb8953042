import { setTimeout } from 'node:timers/promises'
import { Command } from 'commander'
import type {
  AttachmentView,
  DeletionView,
  SalvageView,
  ScrubView,
  SpaceView,
  VolumeList,
  VolumeSpaceView,
  VolumeView,
} from '../api/index.js'
import { iscsiUri } from '../manager/addresses.js'
import { formatBytes, parseSize } from '../manager/volume-spec.js'
import { Client } from './client.js'
import { aCommand, timeoutOption, volumePath, type Shared, type Waiting } from './command.js'
import { addCreationOptions, creationBody, printHowToAttach, printMade, type CreationOptions } from './creation.js'
import { print, printJson, table } from './output.js'
import { parseBandwidth, parseBandwidthOrDefault, parseReplicaIds, parseScrubPeriod } from './values.js'
import { exportCommand, importCommand } from './volume-image.js'
import { sizeOrDash, spaceRows } from './volume-space.js'
import { lastTrimText, trimCommand } from './volume-trim.js'

interface CreateOptions extends CreationOptions {
  size: string
}

export function volumeCommand(): Command {
  const volume = new Command('volume').description(
    'Create, list, change, expand, attach, detach, import, export, scrub, trim, salvage and delete volumes',
  )
  volume.addCommand(createCommand())
  volume.addCommand(listCommand())
  volume.addCommand(showCommand())
  volume.addCommand(updateCommand())
  volume.addCommand(expandCommand())
  volume.addCommand(attachCommand())
  volume.addCommand(detachCommand())
  volume.addCommand(importCommand())
  volume.addCommand(exportCommand())
  volume.addCommand(salvageCommand())
  volume.addCommand(scrubCommand())
  volume.addCommand(trimCommand())
  volume.addCommand(deleteCommand())
  return volume
}

function createCommand(): Command {
  const command = aCommand('create', 'Create a volume and its replicas')
    .argument('<name>', '1 to 63 lower-case letters, digits and hyphens')
    .requiredOption('--size <size>', 'such as 512MiB, 10GiB or 10G')
  return addCreationOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  ankole volume create data --size 10GiB --replicas 3
  ankole volume create data --size 10GiB --physical-block-size 512
  ankole volume create data --size 10GiB --chap-user me --chap-secret-file secret`,
    )
    .action(async (name: string, _: object, command: Command) => {
      const options = command.optsWithGlobals<CreateOptions>()
      const { url, json, size } = options
      parseSize(size)
      const volume = await new Client(url).post<VolumeView>('/v1/volumes', { name, size, ...creationBody(options) })
      if (json) printJson(volume)
      else {
        printMade(volume, 'created')
        printHowToAttach(volume)
      }
    })
}

function listCommand(): Command {
  return aCommand('list', 'List all volumes')
    .alias('ls')
    .action(async (_: object, command: Command) => {
      const { url, json } = command.optsWithGlobals<Shared>()
      const client = new Client(url)
      const [{ volumes }, space] = await Promise.all([
        client.get<VolumeList>('/v1/volumes'),
        client.get<SpaceView>('/v1/space'),
      ])
      const spaceOf = (name: string) => space.volumes.find(({ volume }) => volume === name) ?? null
      if (json) printJson({ volumes: volumes.map((volume) => ({ ...volume, space: spaceOf(volume.name) })) })
      else print(volumeTable(volumes, space.volumes))
    })
}

function showCommand(): Command {
  return aCommand('show', 'Show one volume: its state, replicas, settings, and what the last scrub and trim found')
    .argument('<name>')
    .action(async (name: string, _: object, command: Command) => {
      const { url, json } = command.optsWithGlobals<Shared>()
      const client = new Client(url)
      const volume = await client.get<VolumeView>(volumePath(name))
      const space = await client.get<VolumeSpaceView>(`${volumePath(name)}/space`)
      if (json) printJson({ ...volume, space })
      else print(volumeText(volume, spaceRows(space)))
    })
}

interface UpdateOptions extends Shared {
  resyncBandwidth?: number | 'default'
  scrubPeriod?: number | 'default'
  scrubBandwidth?: number | 'default'
  readWrite?: true
}

function updateCommand(): Command {
  return aCommand('update', 'Change how a volume is resynced and scrubbed, while it is attached too')
    .argument('<name>')
    .option(
      '--resync-bandwidth <bytes>',
      'how much may be copied between its replicas a second, such as 100MiB; 0: no limit, default: that of "ankole up"',
      parseBandwidthOrDefault,
    )
    .option(
      '--scrub-period <time>',
      'how often all of it is compared at all replicas, such as 12h, 7d or 2w; off: never by itself, default: 7d',
      parseScrubPeriod,
    )
    .option(
      '--scrub-bandwidth <bytes>',
      'how much of the volume this compares a second; 0: no limit, default: 32MiB',
      parseBandwidthOrDefault,
    )
    .option('--read-write', 'a volume that was adopted may be written to from now on; it has to be detached')
    .addHelpText(
      'after',
      `
Examples:
  ankole volume update data --resync-bandwidth 200MiB
  ankole volume update data --scrub-period 2w --scrub-bandwidth 64MiB
  ankole volume update data --scrub-period off`,
    )
    .action(async (name: string, _: object, command: Command) => {
      const { url, json, resyncBandwidth, scrubPeriod, scrubBandwidth, readWrite } =
        command.optsWithGlobals<UpdateOptions>()
      const body = {
        ...(resyncBandwidth === undefined ? {} : { resyncBandwidth }),
        ...(scrubPeriod === undefined ? {} : { scrubPeriodSeconds: scrubPeriod }),
        ...(scrubBandwidth === undefined ? {} : { scrubBandwidth }),
        ...(readWrite === undefined ? {} : { readOnly: false }),
      }
      if (Object.keys(body).length === 0) command.error('error: say what to change: ankole volume update --help')
      const volume = await new Client(url).patch<VolumeView>(volumePath(name), body)
      if (json) printJson(volume)
      else print(volumeText(volume))
    })
}

/** How often is looked at what an expansion waits for. */
const expandLookMs = 1000

function expandCommand(): Command {
  return aCommand('expand', 'Make a volume larger, while clients are at work; it never becomes smaller')
    .argument('<name>')
    .requiredOption('--size <size>', 'the new size, such as 20GiB or 20G')
    .addOption(timeoutOption())
    .addHelpText(
      'after',
      `
An initiator sees the new size after a rescan (iscsiadm -m session --rescan), an NBD client when it connects again.

Examples:
  ankole volume expand data --size 20GiB`,
    )
    .action(async (name: string, _: object, command: Command) => {
      const { url, json, size, timeout } = command.optsWithGlobals<Waiting & { size: string }>()
      parseSize(size)
      const client = new Client(url)
      const looking = new AbortController()
      if (!json && process.stderr.isTTY) void tellExpansion(client, name, looking.signal)
      let volume: VolumeView
      try {
        volume = await client.post<VolumeView>(`${volumePath(name)}/expand`, { size, timeoutSeconds: timeout })
      } finally {
        looking.abort()
      }
      if (json) printJson(volume)
      else {
        const when = volume.node === null ? ', which it will have when it is attached' : ''
        print(`Volume ${name} has ${formatBytes(volume.sizeBytes)}${when}.`)
      }
    })
}

/** On a terminal, what it waits for, until it is told to stop. */
async function tellExpansion(client: Client, name: string, signal: AbortSignal): Promise<void> {
  try {
    for (;;) {
      await setTimeout(expandLookMs, undefined, { signal })
      const { expandingToBytes, message } = await client.get<VolumeView>(volumePath(name))
      if (signal.aborted) return
      const to = expandingToBytes === null ? '' : ` to ${formatBytes(expandingToBytes)}`
      process.stderr.write(`\r\u001b[KVolume ${name} is being expanded${to}${message === '' ? '' : `: ${message}`}`)
    }
  } catch {
    // Told to stop, or nobody answers: the command itself says so.
  } finally {
    process.stderr.write('\r\u001b[K')
  }
}

function attachCommand(): Command {
  return aCommand('attach', 'Start the engine of a volume and print where it is served; again: prints the same')
    .argument('<name>')
    .option('--node <node>', 'where to; not needed where there is one node')
    .addOption(timeoutOption())
    .action(async (name: string, _: object, command: Command) => {
      const { url, json, node, timeout } = command.optsWithGlobals<Waiting & { node?: string }>()
      const body = { timeoutSeconds: timeout, ...(node === undefined ? {} : { node }) }
      const attachment = await new Client(url).post<AttachmentView>(`${volumePath(name)}/attach`, body)
      if (json) printJson(attachment)
      else {
        const { node, iscsi, nbd } = attachment
        print(`Volume ${name} is attached to ${node}:`)
        print(`  ${iscsiUri(name, iscsi.portal)}\n  ${nbd.uri}`)
      }
    })
}

function detachCommand(): Command {
  return aCommand('detach', 'Stop the engine of a volume, clean')
    .argument('<name>')
    .addOption(timeoutOption())
    .action(async (name: string, _: object, command: Command) => {
      const { url, json, timeout } = command.optsWithGlobals<Waiting>()
      const volume = await new Client(url).post<VolumeView>(`${volumePath(name)}/detach`, { timeoutSeconds: timeout })
      if (json) printJson(volume)
      else print(`Volume ${name} is detached.`)
    })
}

function salvageCommand(): Command {
  return aCommand('salvage', 'Start a volume that refuses to start, with the replicas that are left; data may be lost')
    .argument('<name>')
    .option(
      '--replicas <ids>',
      'which, separated by commas; those with the newest record if not given',
      parseReplicaIds,
    )
    .option('--yes', 'do it; without this it only says what would be done')
    .addHelpText(
      'after',
      `
First bring back what "ankole volume list" says is lacking: nothing is lost then.

Examples:
  ankole volume salvage data
  ankole volume salvage data --replicas 00000000000000aa --yes`,
    )
    .action(async (name: string, _: object, command: Command) => {
      const { url, json, replicas, yes } = command.optsWithGlobals<Shared & { replicas?: string[]; yes?: true }>()
      const body = { confirm: yes ?? false, ...(replicas === undefined ? {} : { replicas }) }
      const salvage = await new Client(url).post<SalvageView>(`${volumePath(name)}/salvage`, body)
      if (json) printJson(salvage)
      else {
        const { done, replicas, reason, mayLose } = salvage
        print(`Volume ${name} ${done ? 'is salvaged' : 'would be salvaged'} with ${replicas.join(', ')}.`)
        print(`  It cannot start as: ${reason}`)
        print(`  May be lost: ${mayLose}.`)
        print(done ? 'It starts now: ankole volume list' : 'Nothing was done. Repeat with --yes to do it.')
      }
    })
}

/** How often the progress is looked at. */
const scrubLookMs = 1000

function scrubCommand(): Command {
  return aCommand('scrub', 'Compare all of an attached volume at all replicas, and repair what a disk damaged')
    .argument('<name>')
    .option(
      '--bandwidth <bytes>',
      'of the volume a second, such as 200MiB; 64MiB if not given, 0: no bound',
      parseBandwidth,
    )
    .option('--no-wait', 'start it and do not wait for its end')
    .option('--status', 'only say how far it is, or what the last one found')
    .option('--stop', 'stop it')
    .action(async (name: string, _: object, command: Command) => {
      const { url, json, bandwidth, wait, status, stop } = command.optsWithGlobals<
        Shared & { bandwidth?: number; wait: boolean; status?: true; stop?: true }
      >()
      const client = new Client(url)
      const path = `${volumePath(name)}/scrub`
      const start = () => client.post<ScrubView>(path, bandwidth === undefined ? {} : { bandwidth })
      const look = () => client.get<ScrubView>(path)
      const isTold = !json && process.stderr.isTTY
      let view = await (stop ? client.delete<ScrubView>(path) : status ? look() : start())
      while (view.running && wait && !status && !stop) {
        if (isTold) process.stderr.write(`\r${scrubLine(view)}`)
        await setTimeout(scrubLookMs)
        view = await look()
      }
      if (isTold) process.stderr.write('\r\u001b[K')
      if (json) printJson(view)
      else print(stop ? `No scrub of volume ${name} is under way any more.` : scrubLine(view))
      if (view.unrepairable > 0) process.exitCode = 1
    })
}

function scrubLine({ volume, running, blocks, blocksChecked, ...found }: ScrubView): string {
  if (blocks === 0) return `Volume ${volume} was never scrubbed.`
  const how = running ? `${String(Math.floor((100 * blocksChecked) / blocks))} % of` : 'scrubbed'
  const when = running || found.last === null ? '' : `, until ${found.last.endedAt}`
  return `Volume ${volume}: ${how} ${String(blocks)} blocks${when}; ${foundText(found)}.`
}

type Findings = Pick<ScrubView, 'repaired' | 'unrepairable' | 'differing' | 'blocksNotChecked'>

function foundText({ repaired, unrepairable, differing, blocksNotChecked }: Findings): string {
  const parts = [
    `${String(repaired)} damaged blocks repaired`,
    `${String(unrepairable)} damaged at all replicas`,
    `${String(differing)} not the same at all replicas`,
    ...(blocksNotChecked === 0 ? [] : [`${String(blocksNotChecked)} could not be compared`]),
  ]
  return parts.join(', ')
}

function deleteCommand(): Command {
  return aCommand('delete', 'Delete a volume with all its data; stops its engine first')
    .alias('rm')
    .argument('<name>')
    .option('--force', 'also while clients are connected')
    .addOption(timeoutOption())
    .action(async (name: string, _: object, command: Command) => {
      const { url, json, force, timeout } = command.optsWithGlobals<Waiting & { force?: true }>()
      const query = `?timeoutSeconds=${timeout}${force ? '&force=true' : ''}`
      const deletion = await new Client(url).delete<DeletionView>(`${volumePath(name)}${query}`)
      if (json) printJson(deletion)
      else print(`Volume ${name} is deleted.`)
    })
}

/** All that a person may want to know of it. */
export function volumeText(volume: VolumeView, space: readonly [string, string][] = []): string {
  const { name, iscsi, nbd, resyncBandwidth, scrub, replicas, warnings, clonedFrom } = volume
  const message = volume.message === '' ? '' : `: ${volume.message}`
  const bandwidth = resyncBandwidth === null ? 'as its node says' : rateText(resyncBandwidth)
  const every = scrub.periodSeconds === 0 ? 'off' : `every ${periodText(scrub.periodSeconds)}`
  const next = scrub.running ? 'under way' : scrub.dueAt === null ? 'none' : `due ${scrub.dueAt}`
  const rows: [string, string][] = [
    ['volume', `${name}, ${sizeText(volume)}, ${volume.state}, ${volume.robustness}${message}`],
    ...(iscsi === null ? [] : [['iscsi', iscsiUri(name, iscsi.portal)] as [string, string]]),
    ...(nbd === null ? [] : [['nbd', nbd.uri] as [string, string]]),
    ...(volume.readOnly
      ? [['access', 'read-only: adopted, until "ankole volume update --read-write"'] as [string, string]]
      : []),
    ...(clonedFrom === null
      ? []
      : [
          [
            'cloned from',
            `snapshot ${clonedFrom.snapshot} of ${clonedFrom.volume}, ${clonedFrom.linked ? 'linked' : 'in full'}`,
          ] as [string, string],
        ]),
    ['settings', `cache ${volume.cache}, checksums ${volume.checksums ? 'on' : 'off'}, resync ${bandwidth}`],
    ['scrub', `${every} at ${rateText(scrub.bandwidth)}, the next one ${next}`],
    ['last scrub', scrub.last === null ? 'none has ended yet' : `${scrub.last.endedAt}: ${foundText(scrub.last)}`],
    ['last trim', lastTrimText(volume.trim)],
    ...replicas.map(({ id, node, disk, state, message }): [string, string] => [
      'replica',
      `${id} on ${node}/${disk}, ${state}${message === '' ? '' : `: ${message}`}`,
    ]),
    ...space,
    ...warnings.map((warning): [string, string] => ['note', warning]),
  ]
  return rows.map(([what, text]) => `${what.padEnd(12)}${text}`).join('\n')
}

function sizeText({ sizeBytes, expandingToBytes }: Pick<VolumeView, 'sizeBytes' | 'expandingToBytes'>): string {
  const more = expandingToBytes === null ? '' : `, being expanded to ${formatBytes(expandingToBytes)}`
  return `${formatBytes(sizeBytes)}${more}`
}

function rateText(bytesPerSecond: number): string {
  return bytesPerSecond === 0 ? 'without a limit' : `${formatBytes(bytesPerSecond)}/s`
}

function periodText(seconds: number): string {
  return seconds % 86_400 === 0 ? `${seconds / 86_400} d` : `${Number((seconds / 3600).toFixed(1))} h`
}

export function volumeTable(volumes: readonly VolumeView[], space: readonly VolumeSpaceView[] = []): string {
  if (volumes.length === 0) return 'No volumes. Create one with: ankole volume create NAME --size 1GiB'
  return table(
    ['NAME', 'SIZE', 'TAKEN', 'REPLICAS', 'STATE', 'ROBUSTNESS', 'ISCSI', 'NBD', 'MESSAGE'],
    volumes.map(({ name, sizeBytes, replicas, state, robustness, iscsi, nbd, message }) => {
      const good = replicas.filter((replica) => replica.state === 'member' || replica.state === 'ready').length
      const addresses = [iscsi === null ? '-' : iscsiUri(name, iscsi.portal), nbd?.uri ?? '-']
      const taken = sizeOrDash(space.find(({ volume }) => volume === name)?.allocatedBytes)
      return [
        name,
        formatBytes(sizeBytes),
        taken,
        `${good}/${replicas.length}`,
        state,
        robustness,
        ...addresses,
        message,
      ]
    }),
  )
}
