// Bits that flip on the disks of a volume, as disks do: in one replica nobody notices but the counters, in all of them it is an error and never data.

import { closeSync, openSync, readSync, writeSync } from 'node:fs'
import t from 'tap'
import type { ScrubView } from '../../src/api/index.js'
import { pattern } from '../integration/builders.js'
import {
  blockBytes as sectorBytes,
  logInThrough,
  type IscsiSession,
  type ScsiError,
} from '../integration/iscsi-client.js'
import { NbdClient } from '../integration/nbd-client.js'
import { anAnkole, sleep, type LocalAnkole } from './ankole.js'
import type { Volume } from './volume.js'

const blockBytes = 4096
const regionBytes = 4 << 20
const replicas = 3
/** Reads of neighbouring regions go to different replicas. */
const regions = 3
const senseMediumError = 3
const unrecoveredReadError = 0x11
const eio = 'NBD error 5'

/** Written all over, flushed, detached and attached again: no region is dirty, where a mismatch would be no corruption. */
async function aVolumeWithData(ankole: LocalAnkole, name: string): Promise<[Volume, Buffer]> {
  const volume = await ankole.createVolume(name, '16MiB')
  const data = pattern(7, regions * regionBytes)
  const client = await NbdClient.connect(addressOf(volume), name)
  for (let offset = 0; offset < data.length; offset += 1 << 20) {
    await client.write(offset, data.subarray(offset, offset + (1 << 20)))
  }
  await client.flush()
  client.close()
  await volume.healthy()
  await volume.detach()
  return [volume, data]
}

function addressOf({ uri }: Volume): { host: string; port: number } {
  const { hostname: host, port } = new URL(uri)
  return { host, port: Number(port) }
}

/** As seen by all who read the file: a disk that damages what it holds. */
function flipBit(file: string, offset: number): void {
  const descriptor = openSync(file, 'r+')
  const byte = Buffer.alloc(1)
  readSync(descriptor, byte, 0, 1, offset)
  byte[0]! ^= 0x10
  writeSync(descriptor, byte, 0, 1, offset)
  closeSync(descriptor)
}

/** Summed over all that have it. */
async function metric(ankole: LocalAnkole, name: string): Promise<number> {
  const text = await (await fetch(`${ankole.url}/metrics`)).text()
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`))
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

function iscsi({ iscsi: { portal, iqn } }: Volume): Promise<IscsiSession> {
  return logInThrough(portal, iqn)
}

t.test('in one replica: what is read is right, and repaired; a scrub finds what nobody read', async (t) => {
  const ankole = await anAnkole(t)
  const [volume, data] = await aVolumeWithData(ankole, 'one')
  const files = await volume.headFiles()
  t.equal(files.length, replicas)
  // In each region a block of each replica, so that in each region one read meets it at first.
  const places = Array.from({ length: regions }, (_, region) =>
    files.map((file, n) => ({ file, offset: region * regionBytes + (n + 1) * 37 * blockBytes })),
  ).flat()
  for (const { file, offset } of places) flipBit(file, offset + 1234)
  await volume.attach()
  await volume.healthy()
  const nbd = await NbdClient.connect(addressOf(volume), volume.name)
  const session = await iscsi(volume)
  for (const { offset } of places) {
    const right = data.subarray(offset, offset + blockBytes)
    t.ok((await nbd.read(offset, blockBytes)).equals(right), `NBD reads what was written at ${offset}`)
    t.ok((await session.read(offset / sectorBytes, blockBytes)).equals(right), `so does iSCSI`)
  }
  let repaired = 0
  for (let tries = 0; tries < 100 && repaired < regions; tries++) {
    repaired = await metric(ankole, 'ankole_volume_repaired_blocks_total')
    if (repaired < regions) await sleep(50)
  }
  t.ok(repaired >= regions, `reads met ${repaired} of them, which are repaired and counted`)
  t.ok((await metric(ankole, 'ankole_replica_checksum_errors_total')) >= repaired, 'the replicas count them too')

  const scrub = await ankole.cli<ScrubView>('volume', 'scrub', volume.name, '--bandwidth', '0')
  t.match(scrub, { running: false, bad: places.length - repaired, repaired: places.length - repaired })
  t.match(scrub, { unrepairable: 0, differing: 0, blocksNotChecked: 0 })
  t.equal(await metric(ankole, 'ankole_volume_repaired_blocks_total'), places.length, 'all are repaired now')
  const again = await ankole.cli<ScrubView>('volume', 'scrub', volume.name, '--bandwidth', '0')
  t.match(again, { running: false, bad: 0, repaired: 0 }, 'and stay so')
  nbd.close()
  session.close()
  await volume.endsEqual(t)
})

t.test('in all replicas: an error, never wrong data, until it is written anew', async (t) => {
  const ankole = await anAnkole(t)
  const [volume, data] = await aVolumeWithData(ankole, 'all')
  const offset = regionBytes + 11 * blockBytes
  for (const [n, file] of (await volume.headFiles()).entries()) flipBit(file, offset + 7 + 512 * n)
  await volume.attach()
  await volume.healthy()
  const nbd = await NbdClient.connect(addressOf(volume), volume.name)
  const session = await iscsi(volume)
  const isMediumError = async (what: string): Promise<void> => {
    await t.rejects(nbd.read(offset, blockBytes), { message: eio }, `NBD: EIO ${what}`)
    const error = await session.read(offset / sectorBytes, blockBytes).then(
      () => undefined,
      (reason: unknown) => reason as ScsiError,
    )
    t.equal(error?.senseKey, senseMediumError, `iSCSI: MEDIUM ERROR ${what}`)
    t.equal(error?.additionalCode, unrecoveredReadError, `UNRECOVERED READ ERROR ${what}`)
  }
  await isMediumError('at the first read')
  await isMediumError('at the second')
  const before = data.subarray(offset - blockBytes, offset)
  t.ok((await nbd.read(offset - blockBytes, blockBytes)).equals(before), 'its neighbour is there')
  t.equal((await volume.healthy()).message, '', 'nobody leaves for it')
  const scrub = await ankole.command('volume', 'scrub', volume.name, '--bandwidth', '0', '--json').ended
  t.equal(scrub.code, 1, 'a scrub says so by its exit code')
  t.match(JSON.parse(scrub.stdout), { bad: 1, repaired: 0, unrepairable: 1 })
  t.equal(await metric(ankole, 'ankole_volume_scrub_corrupt_blocks'), 1)

  const anew = pattern(9, blockBytes)
  await session.write(offset / sectorBytes, anew)
  t.ok((await nbd.read(offset, blockBytes)).equals(anew), 'a write heals it')
  t.ok((await session.read(offset / sectorBytes, blockBytes)).equals(anew))
  const healed = await ankole.cli<ScrubView>('volume', 'scrub', volume.name, '--bandwidth', '0')
  t.match(healed, { bad: 0, unrepairable: 0, differing: 0 })
  nbd.close()
  session.close()
  await volume.endsEqual(t)
})
