import { readFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { defaultUrl } from './client.js'
import { replicaCommand } from './replica.js'
import { snapshotCommand } from './snapshot.js'
import { statusCommand } from './status.js'
import { upCommand } from './up.js'
import { volumeCommand } from './volume.js'

const help = `
Examples:
  ankole up                                    run it here, with a first volume
  ankole volume create data --size 10GiB       a volume with three replicas
  ankole volume attach data                    serve it, and print its address
  ankole snapshot create data                  what it holds now, kept
  ankole status                                what runs, and where the data is

Every command has its own --help, and --json where it prints something.
The commands but "up" talk to the API at ANKOLE_URL, ${defaultUrl} if not set.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 Ankole cannot be reached, 4 not done in time`

export function buildProgram(): Command {
  const version = packageVersion()
  const program = new Command('ankole')
    .description('Distributed block storage: every volume has its own small controller.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .addOption(new Option('--url <url>', 'address of the API').env('ANKOLE_URL').default(defaultUrl))
    .configureHelp({ showGlobalOptions: true })
    .showSuggestionAfterError()
    .showHelpAfterError('Add --help to see what there is.')
    .addHelpText('after', help)
  const commands = [upCommand(version), volumeCommand(), snapshotCommand(), replicaCommand(), statusCommand()]
  for (const command of commands) program.addCommand(command)
  inheritSettings(program)
  return program
}

/** Commander copies settings only to commands that it makes itself. */
function inheritSettings(parent: Command): void {
  parent.exitOverride().helpCommand(false)
  for (const command of parent.commands) {
    command.copyInheritedSettings(parent)
    inheritSettings(command)
  }
}

function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
