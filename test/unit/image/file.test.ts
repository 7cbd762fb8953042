// The file that an image is written to: whole, or not there.
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openSource, TargetFile } from '../../../src/image/file.js'

t.test('a file is there when it is whole, and not before', async (t) => {
  const directory = t.testdir()
  const path = join(directory, 'image.raw')
  const target = await TargetFile.create(path, { replace: false })
  await target.file.write('all of it')
  t.notOk(existsSync(path))
  t.equal(join(target.temporary, '..'), directory, 'it is on the same file system')
  await target.publish()
  await target.end()
  t.equal(readFileSync(path, 'utf8'), 'all of it')
  t.same(readdirSync(directory), ['image.raw'])
})

t.test('what was not published leaves nothing', async (t) => {
  const directory = t.testdir()
  const target = await TargetFile.create(join(directory, 'image.raw'), { replace: false })
  await target.file.write('a part')
  await target.end()
  t.same(readdirSync(directory), [])
})

t.test('a file that is there is refused, or replaced when the new one is whole', async (t) => {
  const directory = t.testdir({ old: 'old' })
  const path = join(directory, 'old')
  await t.rejects(TargetFile.create(path, { replace: false }), { code: 'already-exists', message: /--force/ })
  const target = await TargetFile.create(path, { replace: true })
  await target.file.write('new')
  t.equal(readFileSync(path, 'utf8'), 'old')
  await target.publish()
  await target.end()
  t.equal(readFileSync(path, 'utf8'), 'new')
  t.same(readdirSync(directory), ['old'])
})

t.test('a file that came there meanwhile is not replaced', async (t) => {
  const directory = t.testdir()
  const path = join(directory, 'image')
  const target = await TargetFile.create(path, { replace: false })
  writeFileSync(path, 'of somebody else')
  await t.rejects(target.publish(), { code: 'already-exists' })
  await target.end()
  t.equal(readFileSync(path, 'utf8'), 'of somebody else')
  t.same(readdirSync(directory), ['image'])
})

t.test('a link stays one, and what is no file is never replaced', async (t) => {
  const directory = t.testdir({ real: 'old' })
  symlinkSync('real', join(directory, 'link'))
  await t.rejects(TargetFile.create(join(directory, 'link'), { replace: false }), { code: 'already-exists' })
  const target = await TargetFile.create(join(directory, 'link'), { replace: true })
  await target.file.write('new')
  await target.publish()
  await target.end()
  t.ok(lstatSync(join(directory, 'link')).isSymbolicLink())
  t.equal(readFileSync(join(directory, 'real'), 'utf8'), 'new')

  mkdirSync(join(directory, 'directory'))
  symlinkSync('nowhere', join(directory, 'dangling'))
  for (const path of [join(directory, 'directory'), join(directory, 'dangling'), '/dev/null']) {
    await t.rejects(TargetFile.create(path, { replace: true }), { code: 'file-error' }, path)
  }
  const nowhere = TargetFile.create(join(directory, 'none', 'image'), { replace: false })
  await t.rejects(nowhere, { code: 'file-error', message: /there is no such file or directory/ })
})

t.test('names as long as file systems have them', async (t) => {
  const path = join(t.testdir(), '\u20ac'.repeat(85))
  const target = await TargetFile.create(path, { replace: false })
  await target.publish()
  await target.end()
  t.ok(existsSync(path))
})

t.test('an image is read from a file only', async (t) => {
  const directory = t.testdir()
  await t.rejects(openSource(join(directory, 'none')), { code: 'file-error', message: /there is no such file/ })
  await t.rejects(openSource(directory), { code: 'invalid-image', message: /it is no file/ })
  await t.rejects(openSource('/dev/zero'), { code: 'invalid-image' })
})
