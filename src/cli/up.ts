import { Command, Option } from 'commander'
import { portalPortDefault } from '../manager/addresses.js'
import { nbdPortFirst } from '../manager/ports.js'
import type { IoBackend } from '../native/index.js'
import { logLevels, type LogLevel } from './log-level.js'
import {
  formatHostPort,
  parseCount,
  parseGraceMs,
  parseHostPort,
  parsePercent,
  parsePortFirst,
  type HostPort,
  parseBandwidth,
} from './values.js'

export interface UpOptions {
  data: string
  disks?: number
  http: HostPort
  iscsi: HostPort
  demo: boolean
  ioBackend: IoBackend
  replicaGrace: number
  resyncBandwidth: number
  volumePorts: number
  diskWarning: number
  diskCritical: number
  replication: 'unix' | 'tcp'
  logLevel: LogLevel
  json?: true
}

const disksMax = 64
const httpDefault: HostPort = { host: '127.0.0.1', port: 9500 }
const iscsiDefault: HostPort = { host: '127.0.0.1', port: portalPortDefault }

export function upCommand(version: string): Command {
  return new Command('up')
    .description('Run Ankole on this machine, in the foreground')
    .option('--data <dir>', 'where everything is kept', './data')
    .addOption(
      new Option('--disks <n>', 'disks to have, directories under the data directory (default: 3)').argParser(
        parseCount(disksMax),
      ),
    )
    .addOption(
      new Option('--http <host:port>', 'where the API listens')
        .argParser(parseHostPort)
        .default(httpDefault, formatHostPort(httpDefault)),
    )
    .addOption(
      new Option('--iscsi <host:port>', 'where the iSCSI portal listens; engines on ports of their own beside it')
        .argParser(parseHostPort)
        .default(iscsiDefault, formatHostPort(iscsiDefault)),
    )
    .option('--no-demo', 'do not make a first volume where there is none')
    .addOption(
      new Option('--io-backend <which>', 'how files and sockets are driven')
        .choices(['auto', 'uring', 'epoll'])
        .default('auto'),
    )
    .addOption(
      new Option('--replica-grace <time>', 'how long a replica may be late before the volume goes on without it')
        .argParser(parseGraceMs)
        .default(1000, '1s'),
    )
    .addOption(
      new Option(
        '--resync-bandwidth <bytes>',
        'how much a volume may copy between its replicas a second, such as 100MiB',
      )
        .argParser(parseBandwidth)
        .default(0, 'no limit'),
    )
    .addOption(
      new Option(
        '--volume-ports <first>',
        'the first TCP port that volumes are given for NBD; for iSCSI 10000 above that',
      )
        .argParser(parsePortFirst)
        .default(nbdPortFirst),
    )
    .addOption(
      new Option('--disk-warning <percent>', 'how full the file system of a disk is when that is said')
        .argParser(parsePercent)
        .default(80, '80'),
    )
    .addOption(
      new Option('--disk-critical <percent>', 'and when it is said to be nearly full')
        .argParser(parsePercent)
        .default(90, '90'),
    )
    .addOption(
      new Option('--replication <how>', 'how engines reach the disk hosts of this machine')
        .choices(['unix', 'tcp'])
        .default('unix'),
    )
    .addOption(new Option('--log-level <level>', 'what to log to stderr').choices(logLevels).default('info'))
    .option('--json', 'print JSON once it serves')
    .addHelpText(
      'after',
      `
Ctrl-C stops it clean; started again, everything is back with its data.

Examples:
  ankole up                                   three disks under ./data and a first volume, demo
  ankole up --data /srv/ankole --disks 5      five disks under /srv/ankole/disks
  ankole up --http 127.0.0.1:9600 --iscsi 127.0.0.1:3261 --no-demo
                                              the API and iSCSI on other ports, and no first volume`,
    )
    .action(async (options: UpOptions) => {
      // The other commands start in a fraction of the time without all that this one needs.
      const { up } = await import('./run.js')
      await up(options, version)
    })
}
