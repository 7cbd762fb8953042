import { Command, Option } from 'commander'
import type { RevertView, SnapshotDeletionView, SnapshotList, SnapshotView } from '../api/index.js'
import { formatBytes } from '../manager/volume-spec.js'
import { Client } from './client.js'
import { aCommand, timeoutOption, type Shared, type Waiting } from './command.js'
import { print, printJson, told } from './output.js'
import { cloneCommand } from './snapshot-clone.js'
import { snapshotText } from './snapshot-tree.js'
import { diffCommand } from './snapshot-diff.js'
import { parseLabel } from './values.js'

export function snapshotCommand(): Command {
  const snapshot = new Command('snapshot').description(
    'Take, list, compare, clone and delete snapshots, and revert to them',
  )
  snapshot.addCommand(createCommand())
  snapshot.addCommand(listCommand())
  snapshot.addCommand(deleteCommand())
  snapshot.addCommand(diffCommand())
  snapshot.addCommand(revertCommand())
  snapshot.addCommand(cloneCommand())
  return snapshot
}

function createCommand(): Command {
  return aCommand('create', 'Take a snapshot of an attached volume: what it holds at one instant')
    .argument('<volume>')
    .argument('[name]', '1 to 63 lower-case letters, digits and hyphens; by the time if not given')
    .addOption(
      new Option('--label <key=value>', 'kept with it; as often as you like').argParser(parseLabel).default({}, 'none'),
    )
    .addOption(timeoutOption())
    .addHelpText(
      'after',
      `
Examples:
  ankole snapshot create data
  ankole snapshot create data before-upgrade --label app=db --label by=me`,
    )
    .action(async (volume: string, name: string | undefined, _: object, command: Command) => {
      const { url, json, label, timeout } = command.optsWithGlobals<Waiting & { label: Record<string, string> }>()
      const body = { ...(name === undefined ? {} : { name }), labels: label, timeoutSeconds: timeout }
      const taking = new Client(url).post<SnapshotView>(pathOf(volume), body)
      const snapshot = await told(json, `A snapshot of volume ${volume} is being taken`, taking)
      if (json) printJson(snapshot)
      else {
        const { pauseMs } = snapshot
        const pause =
          pauseMs === null ? '' : `: I/O was held up for ${Number(pauseMs.toFixed(pauseMs < 10 ? 2 : 0))} ms`
        print(`Snapshot ${snapshot.name} of volume ${volume} is ready${pause}.`)
      }
    })
}

function listCommand(): Command {
  return aCommand('list', 'List the snapshots of a volume, each below the one that it builds on')
    .alias('ls')
    .argument('<volume>')
    .action(async (volume: string, _: object, command: Command) => {
      const { url, json } = command.optsWithGlobals<Shared>()
      const list = await new Client(url).get<SnapshotList>(pathOf(volume))
      if (json) printJson(list)
      else print(snapshotText(list, Date.now()))
    })
}

function deleteCommand(): Command {
  return aCommand('delete', 'Delete a snapshot; what only it holds comes back in the background')
    .alias('rm')
    .argument('<volume>')
    .argument('<name>')
    .addOption(timeoutOption())
    .action(async (volume: string, name: string, _: object, command: Command) => {
      const { url, json, timeout } = command.optsWithGlobals<Waiting>()
      const path = `${pathOf(volume)}/${encodeURIComponent(name)}?timeoutSeconds=${timeout}`
      const deleting = new Client(url).delete<SnapshotDeletionView>(path)
      const deletion = await told(json, `Snapshot ${name} of volume ${volume} is being deleted`, deleting)
      if (json) printJson(deletion)
      else print(deletionText(deletion))
    })
}

function revertCommand(): Command {
  return aCommand('revert', 'Take an attached volume back to a snapshot; what it holds now is kept as another snapshot')
    .argument('<volume>')
    .argument('<name>', 'of the snapshot')
    .option('--keep <name>', 'what the snapshot of what the volume holds now is called; by the time if not given')
    .option('--force', 'although clients are connected: a file system that is mounted is damaged by that')
    .addOption(timeoutOption())
    .addHelpText(
      'after',
      `
Unmount the volume and log out from it first.

Examples:
  ankole snapshot revert data before-upgrade
  ankole snapshot revert data before-upgrade --keep broken`,
    )
    .action(async (volume: string, name: string, _: object, command: Command) => {
      const { url, json, keep, force, timeout } = command.optsWithGlobals<Waiting & { keep?: string; force?: true }>()
      const body = {
        ...(keep === undefined ? {} : { keepName: keep }),
        ...(force === undefined ? {} : { force }),
        timeoutSeconds: timeout,
      }
      const path = `${pathOf(volume)}/${encodeURIComponent(name)}/revert`
      const reverting = new Client(url).post<RevertView>(path, body)
      const view = await told(json, `Volume ${volume} is being reverted to snapshot ${name}`, reverting)
      if (json) printJson(view)
      else {
        print(
          `Volume ${volume} holds what snapshot ${name} does. What it held before is snapshot ${view.kept}; delete that ` +
            `when it is not needed: ankole snapshot delete ${volume} ${view.kept}`,
        )
      }
    })
}

function deletionText({ volume, name, deleted, message, allocatedBytes }: SnapshotDeletionView): string {
  if (!deleted) return `Snapshot ${name} of volume ${volume} is not deleted yet: ${message}.`
  const space =
    allocatedBytes === null
      ? ''
      : `\nIt takes up ${formatBytes(allocatedBytes)} at each replica now. What of that neither the volume nor another ` +
        'snapshot needs comes back in the background.'
  return `Snapshot ${name} of volume ${volume} is deleted.${space}`
}

function pathOf(volume: string): string {
  return `/v1/volumes/${encodeURIComponent(volume)}/snapshots`
}
