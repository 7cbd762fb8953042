// What a volume is made as, on the command line.
import { Option, type Command } from 'commander'
import { formatBytes, physicalBlockBytesDefault, replicasMax } from '../manager/volume-spec.js'
import type { VolumeView } from '../api/index.js'
import type { CacheMode, PhysicalBlockBytes } from '../store/index.js'
import { readChap, type ChapOptions } from './chap.js'
import { timeoutOption, type Waiting } from './command.js'
import { print } from './output.js'
import { parseCount, parsePhysicalBlock } from './values.js'

export interface CreationOptions extends Waiting, ChapOptions {
  replicas: number
  cache: CacheMode
  checksums: boolean
  physicalBlockSize: PhysicalBlockBytes
}

export function addCreationOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--replicas <n>', 'whole copies, each on a disk of its own')
        .argParser(parseCount(replicasMax))
        .default(3),
    )
    .addOption(
      new Option('--cache <mode>', 'how replicas are written: through the page cache, or O_DIRECT')
        .choices(['buffered', 'direct'] satisfies CacheMode[])
        .default('buffered'),
    )
    .option('--no-checksums', 'keep no checksums on disk: less work, and what a disk damages is not noticed')
    .addOption(
      new Option(
        '--physical-block-size <bytes>',
        'what iSCSI initiators are told: 4096, or 512 where one takes no other',
      )
        .argParser(parsePhysicalBlock)
        .default(physicalBlockBytesDefault),
    )
    .option('--chap-user <name>', 'who may log in by iSCSI; whoever reaches the portal if not given')
    .option('--chap-secret-file <file>', 'its secret: 12 to 64 printable characters')
    .option('--chap-mutual-user <name>', 'who the target proves to be in turn')
    .option('--chap-mutual-secret-file <file>', 'its secret, another one')
    .addOption(timeoutOption())
}

/** Of the request that makes it, but for name and size. Throws invalid-chap. */
export function creationBody({ replicas, cache, checksums, physicalBlockSize, timeout, ...options }: CreationOptions) {
  const chap = readChap(options)
  return {
    ...{ numberOfReplicas: replicas, cache, checksums, physicalBlockBytes: physicalBlockSize },
    timeoutSeconds: timeout,
    ...(chap === undefined ? {} : { chap }),
  }
}

/** `how`: created, imported from a file. */
export function printMade({ name, sizeBytes, replicas, warnings }: VolumeView, how: string): void {
  const places = replicas.map(({ node, disk }) => `${node}/${disk}`).join(', ')
  print(`Volume ${name} is ${how}: ${formatBytes(sizeBytes)}, with replicas on ${places}.`)
  for (const warning of warnings) print(`Note: ${warning}.`)
}

export function printHowToAttach({ name }: VolumeView): void {
  print(`Attach it with: ankole volume attach ${name}`)
}
