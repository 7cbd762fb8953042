// What is taken for an image, and what is not: by its bytes, and without opening anything that it names.
import t from 'tap'
import { examineImage, type ImageBytes } from '../../../src/image/format.js'
import { aQcow2Header, type HeaderFields } from './builders.js'

function bytes(head: Buffer, { fileBytes = head.length, tail = '' } = {}): ImageBytes {
  return { path: '/images/a', fileBytes, head: head.subarray(0, 4096), tail: Buffer.from(tail.padEnd(512, '\0')) }
}

const begins = (text: string): Buffer => Buffer.concat([Buffer.from(text, 'latin1'), Buffer.alloc(4096)])

t.test('what is of no other format is the bytes of a disk', (t) => {
  t.same(examineImage(bytes(Buffer.alloc(512))), { format: 'raw', virtualBytes: 512, notes: [] })
  t.match(examineImage(bytes(begins('any'), { fileBytes: 3 * 2 ** 40 })), { virtualBytes: 3 * 2 ** 40 })
  t.throws(() => examineImage(bytes(Buffer.alloc(0))), { code: 'invalid-image', message: /is empty/ })
  const cut = bytes(Buffer.alloc(4096), { fileBytes: 4097 })
  t.throws(() => examineImage(cut), {
    code: 'invalid-image',
    message: /4097 bytes, .* no multiple of 512 .* truncated/,
  })
  t.end()
})

t.test('images of other formats are refused by name, unless they are said to be raw', (t) => {
  const marks: [string, RegExp][] = [
    ['KDMV\u0001', /a VMDK image/],
    ['# Disk DescriptorFile\nversion=1', /the description of a VMDK/],
    ['vhdxfile', /a VHDX image/],
    ['conectix', /a VHD image/],
    [`${'\0'.repeat(64)}\u007f\u0010\u00da\u00be`, /a VDI image/],
    ['QED\0', /a QED image/],
    ['WithouFreSpacExt', /a Parallels image/],
    ['QFI\u00fb\0\0\0\u0001' + '\0'.repeat(100), /of the old format qcow/],
    ['\u001f\u008b\u0008', /packed with gzip: unpack/],
    ['\u00fd7zXZ\0', /packed with xz/],
    ['\u0028\u00b5\u002f\u00fd', /packed with zstd/],
    [`${'x'.repeat(257)}ustar`, /packed with tar/],
  ]
  for (const [mark, message] of marks) {
    const image = bytes(begins(mark), { fileBytes: 1 << 20 })
    t.throws(() => examineImage(image), { code: 'invalid-image', message }, String(message))
    t.match(examineImage(image, 'raw'), { format: 'raw', virtualBytes: 1 << 20 })
  }
  const fixed = bytes(Buffer.alloc(4096), { tail: 'conectix' })
  t.throws(() => examineImage(fixed), { message: /a VHD image/ })
  t.end()
})

t.test('a qcow2 image is told by its header', (t) => {
  const found = examineImage(bytes(aQcow2Header({ virtualBytes: 1000 * 512 })))
  t.match(found, { format: 'qcow2', virtualBytes: 512_000, notes: [], header: { clusterBits: 16, extendedL2: false } })
  t.match(examineImage(bytes(aQcow2Header({ version: 2 })), 'qcow2'), { format: 'qcow2' })
  t.match(examineImage(bytes(aQcow2Header({ snapshots: 2 }))), { notes: ['the snapshots in the image are left out'] })
  t.match(examineImage(bytes(aQcow2Header({ incompatible: 24n }))), { header: { extendedL2: true } })
  t.match(examineImage(bytes(aQcow2Header()), 'raw'), { format: 'raw' })
  t.throws(() => examineImage(bytes(begins('any')), 'qcow2'), { code: 'invalid-image', message: /no qcow2 image/ })
  t.end()
})

t.test('a qcow2 image that is not whole by itself, or that cannot be understood, is refused by name', (t) => {
  const cases: [HeaderFields, RegExp][] = [
    [{ backingFile: '/etc/shadow' }, /its backing file "\/etc\/shadow", and files that an image names are not opened/],
    [{ backingFile: 'json:{"driver":"nbd"}\u0007' }, /its backing file "json:\{\\"driver\\":\\"nbd\\"\}\\u0007"/],
    [{ backingOffset: 1e9 }, /its backing file, and/],
    [{ incompatible: 4n }, /external data file/],
    [{ incompatible: 2n }, /marked as corrupt\. Repair a copy/],
    [{ incompatible: 1n }, /not closed clean/],
    [{ incompatible: 1n << 40n }, /not known \(bits 0x10000000000\)/],
    [{ encryption: 1 }, /it is encrypted/],
    [{ encryption: 2 }, /it is encrypted/],
    [{ version: 4 }, /qcow2 of version 4/],
    [{ clusterBits: 8 }, /it is damaged/],
    [{ clusterBits: 22 }, /it is damaged/],
    [{ clusterBits: 0xffffffff }, /it is damaged/],
    [{ virtualBytes: 0 }, /its disk is empty/],
    [{ virtualBytes: 2 ** 60 }, /it is damaged/],
    [{ l1Entries: 0 }, /it is damaged/],
    [{ l1Entries: 0xffffffff }, /it is damaged/],
  ]
  for (const [fields, message] of cases) {
    t.throws(() => examineImage(bytes(aQcow2Header(fields))), { code: 'invalid-image', message }, String(message))
  }
  for (const length of [4, 8, 71, 103]) {
    t.throws(() => examineImage(bytes(aQcow2Header().subarray(0, length))), { message: /it is truncated/ })
  }
  t.end()
})
