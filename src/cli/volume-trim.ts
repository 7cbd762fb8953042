// `ankole volume trim`: begins it, and tells how far it is until it has ended.
import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import type { TrimView, VolumeView } from '../api/index.js'
import { formatBytes } from '../manager/volume-spec.js'
import { Client } from './client.js'
import { aCommand, volumePath, type Shared } from './command.js'
import { print, printJson } from './output.js'
import { reportProgress } from './progress.js'
import { parseBandwidth } from './values.js'

/** How often the progress is looked at. */
const lookMs = 500

interface TrimOptions extends Shared {
  bandwidth?: number
  wait: boolean
  status?: true
  stop?: true
}

export function trimCommand(): Command {
  return aCommand('trim', 'Give back what takes up space in an attached volume and holds nothing but zeros')
    .argument('<name>')
    .option(
      '--bandwidth <bytes>',
      'that are read a second, such as 200MiB; 64MiB if not given, 0: no bound',
      parseBandwidth,
    )
    .option('--no-wait', 'start it and do not wait for its end')
    .option('--status', 'only say how far it is, or what became of the last one')
    .option('--stop', 'stop it; what it gave back stays so')
    .addHelpText(
      'after',
      `
Clients go on meanwhile. Without --no-wait, Ctrl-C ends the waiting, not the trim.
With --json it prints a line of progress each second, and the outcome as the last line.

Examples:
  ankole volume trim data
  ankole volume trim data --bandwidth 0 --json`,
    )
    .action(async (name: string, _: object, command: Command) => {
      const { url, json, bandwidth, wait, status, stop } = command.optsWithGlobals<TrimOptions>()
      const client = new Client(url)
      const path = `${volumePath(name)}/trim`
      if (stop || status) {
        const view = await (stop ? client.delete<TrimView>(path) : client.get<TrimView>(path))
        if (json) printJson(view)
        else print(stop ? `No trim of volume ${name} is under way any more.` : trimLine(view))
        return
      }
      let view = await client.post<TrimView>(path, bandwidth === undefined ? {} : { bandwidth })
      if (wait) view = await untilEnd(client, path, name, json)
      if (!json) print(trimLine(view))
      else if (wait) print(JSON.stringify({ event: 'done', ...view }))
      else printJson(view)
      if (wait && view.last?.outcome !== 'done') process.exitCode = 1
    })
}

async function untilEnd(client: Client, path: string, name: string, json: true | undefined): Promise<TrimView> {
  const progress = reportProgress(`Trimming volume ${name}`, json)
  try {
    for (;;) {
      const view = await client.get<TrimView>(path)
      if (!view.running) return view
      progress.update({ doneBytes: view.bytesDone, totalBytes: view.bytes })
      await setTimeout(lookMs)
    }
  } finally {
    progress.end()
  }
}

/** Of a volume that is shown. */
export function lastTrimText({ running, last }: VolumeView['trim']): string {
  if (running) return 'one is under way'
  if (last === null) return 'none'
  return `${last.endedAt}: ${last.outcome}, ${formatBytes(last.unmappedBytes)} of zeros given back`
}

export function trimLine({ volume, running, bytes, bytesDone, unmappedBytes, failedBytes, last }: TrimView): string {
  if (!running && last === null) return `Volume ${volume} was never trimmed.`
  const given = `${formatBytes(unmappedBytes)} of zeros given back`
  const failed = failedBytes === 0 ? '' : `, ${formatBytes(failedBytes)} could not be looked at (see the log)`
  if (running) {
    const percent = bytes === 0 ? 100 : Math.floor((100 * bytesDone) / bytes)
    return `Volume ${volume} is being trimmed: ${percent} % of ${formatBytes(bytes)}; ${given}${failed}.`
  }
  const how = { done: 'trimmed', stopped: 'trim stopped', interrupted: 'trim interrupted by a detach' }
  return `Volume ${volume}: ${how[last?.outcome ?? 'done']}, until ${last?.endedAt ?? ''}; ${given}${failed}.`
}
