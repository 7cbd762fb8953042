// What the kernel found out about a SCSI disk.

import type { Guest } from './guest.js'

export interface Disk {
  sizeBytes: number
  vendor: string
  model: string
  /** VPD page 80h. */
  serial: string
  /** VPD page 83h: the NAA designator of the logical unit, in hexadecimal digits; undefined if it has none. */
  naa: string | undefined
  /** It takes UNMAP. */
  discards: boolean
  cache: string
}

export async function theDisk(guest: Guest, device: string): Promise<Disk> {
  const name = device.replace('/dev/', '')
  const read = async (attribute: string): Promise<string> =>
    (await guest.do(`cat /sys/block/${name}/${attribute}`)).trim()
  const readPage = async (page: string): Promise<Buffer> =>
    Buffer.from((await guest.do(`base64 /sys/block/${name}/device/${page}`)).replaceAll('\n', ''), 'base64')
  return {
    sizeBytes: Number(await read('size')) * 512,
    vendor: await read('device/vendor'),
    model: await read('device/model'),
    serial: (await readPage('vpd_pg80')).subarray(4).toString().trim(),
    naa: naaOf(await readPage('vpd_pg83')),
    discards: Number(await read('queue/discard_max_bytes')) > 0,
    cache: await read('queue/write_cache'),
  }
}

/** Designators begin behind four bytes, and have a header of four each (SPC-4, 7.8.6): 3 is the type of NAA. */
function naaOf(page: Buffer): string | undefined {
  for (let at = 4; at + 4 <= page.length; at += 4 + page[at + 3]!) {
    const [ofLogicalUnit, type] = [((page[at + 1]! >> 4) & 3) === 0, page[at + 1]! & 15]
    if (ofLogicalUnit && type === 3) return page.subarray(at + 4, at + 4 + page[at + 3]!).toString('hex')
  }
  return undefined
}
