import t from 'tap'
import { checkName, checkPhysicalBlock, formatBytes, parseSize } from '../../../src/manager/index.js'

void t.test('sizes are read as people write them', (t) => {
  const good: [string | number, number][] = [
    ['1GiB', 1024 ** 3],
    ['1Gi', 1024 ** 3],
    ['512MiB', 512 * 1024 ** 2],
    ['1.5 TiB', 1.5 * 1024 ** 4],
    ['64TiB', 64 * 1024 ** 4],
    ['1mib', 1024 ** 2],
    ['1048576', 1024 ** 2],
    [1048576, 1024 ** 2],
    ['1048576B', 1024 ** 2],
  ]
  for (const [text, bytes] of good) t.equal(parseSize(text), bytes, String(text))
  t.end()
})

void t.test('a decimal size is rounded up to whole blocks', (t) => {
  t.equal(parseSize('10G'), 10_000_003_072)
  t.equal(parseSize('10G') % 4096, 0)
  t.equal(parseSize('10GB'), parseSize('10G'))
  t.end()
})

void t.test('what is no size, or none that can be served, is refused with the reason', (t) => {
  const bad: [string | number, RegExp][] = [
    ['', /not a size/],
    ['big', /not a size/],
    ['-1GiB', /not a size/],
    ['1XiB', /not a size/],
    ['1GiBB', /not a size/],
    ['NaN', /not a size/],
    [Number.NaN, /not a size/],
    ['1e12', /not a size/],
    ['0', /too small/],
    ['4KiB', /too small/],
    ['65TiB', /too large/],
    ['99999999999999999999', /too large/],
    ['1048577', /not a multiple of 4096 bytes: the next one is 1052672/],
  ]
  for (const [text, message] of bad) t.throws(() => parseSize(text), { code: 'invalid-size', message }, String(text))
  t.end()
})

void t.test('physical blocks are logical blocks, or what a checksum covers', (t) => {
  for (const bytes of [512, 4096]) t.equal(checkPhysicalBlock(bytes), bytes)
  for (const bytes of [0, 511, 1024, 8192, NaN]) {
    t.throws(
      () => checkPhysicalBlock(bytes),
      { code: 'invalid-argument', message: /512 or 4096 bytes, not/ },
      `${bytes}`,
    )
  }
  t.end()
})

void t.test('names are DNS labels', (t) => {
  for (const name of ['a', '0', 'demo', 'pvc-0a1b', 'x'.repeat(63)]) t.equal(checkName(name), name)
  const bad: [string, RegExp][] = [
    ['', /it is empty/],
    ['x'.repeat(64), /64 characters, 63/],
    ['Demo', /contains "D"/],
    ['a/b', /contains "\/"/],
    ['..', /contains "\."/],
    ['a b', /contains " "/],
    ['-a', /hyphen/],
    ['a-', /hyphen/],
    ['ä', /contains "ä"/],
    ['a\n', /contains "\\n"/],
  ]
  for (const [name, message] of bad) t.throws(() => checkName(name), { code: 'invalid-name', message }, name)
  t.end()
})

void t.test('bytes are shown short', (t) => {
  t.equal(formatBytes(1024 ** 3), '1 GiB')
  t.equal(formatBytes(1536 * 1024 ** 2), '1.5 GiB')
  t.equal(formatBytes(512), '512 B')
  t.end()
})
