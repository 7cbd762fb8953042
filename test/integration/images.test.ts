// `ankole volume import` and `export`, with the real processes: what came in goes out as it was, and what cannot be is
// refused.
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { lacksQemuImg, qemuImg } from '../unit/image/builders.js'
import { allocatedBytes, allocatedByVolume, anImage, digest, MiB, show, volumes } from './images.js'
import { up } from './up.js'

t.test('images come in and go out as they were', async (t) => {
  const directory = t.testdir()
  const ankole = await up(t, join(directory, 'data'), '--no-demo')
  const raw = anImage(join(directory, 'in.raw'), 48 * MiB + 512)
  const [out, qcow2] = [join(directory, 'out.raw'), join(directory, 'out.qcow2')]

  await t.test('raw, with holes as holes', async (t) => {
    const imported = await ankole.run('volume', 'import', raw, 'one')
    t.match(imported, { exitCode: 0, stderr: '' })
    t.match(imported.stdout, /^Volume one is imported from .*in.raw in \d+ s: 48 MiB, with replicas on .*disk-1/)
    t.match(imported.stdout, /Note: the disk in the image has 50332160 bytes, and the volume 50335744: the rest reads/)
    t.match(imported.stdout, /Attach it with: ankole volume attach one\n$/)
    const volume = await show(ankole, 'one')
    t.match(volume, { state: 'detached', sizeBytes: 50_335_744, transfer: null, numberOfReplicas: 3 })
    for (const bytes of allocatedByVolume(volume)) t.ok(bytes < 4 * MiB, `${bytes} bytes are taken up`)

    const exported = await ankole.run('volume', 'export', 'one', out)
    t.match(exported, {
      exitCode: 0,
      stderr: '',
      stdout: /^Volume one is exported to .*out.raw: 48 MiB, which take up 3/,
    })
    t.equal(statSync(out).size, 50_335_744)
    t.equal(digest(out, 48 * MiB + 512), digest(raw))
    t.ok(
      readFileSync(out)
        .subarray(48 * MiB + 512)
        .equals(Buffer.alloc(3584)),
    )
    t.ok(allocatedBytes(out) < 4 * MiB, `${allocatedBytes(out)} bytes are taken up`)
    t.same(await volumes(ankole), ['one detached'])
  })

  await t.test('qcow2, and into a larger volume', { skip: lacksQemuImg }, async (t) => {
    const exported = await ankole.run('volume', 'export', 'one', qcow2, '--json')
    t.equal(exported.exitCode, 0, exported.stderr)
    const lines = exported.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string })
    t.match(lines.at(-1), {
      event: 'done',
      volume: 'one',
      file: qcow2,
      format: 'qcow2',
      sizeBytes: 50_335_744,
      notes: [],
    })
    t.ok(lines.slice(0, -1).every(({ event }) => event === 'progress'))
    qemuImg('compare', '-f', 'qcow2', '-F', 'raw', qcow2, out)
    t.ok(statSync(qcow2).size < 6 * MiB)

    const imported = await ankole.run('volume', 'import', qcow2, 'two', '--size', '64MiB', '--replicas', '1', '--json')
    t.equal(imported.exitCode, 0, imported.stderr)
    const done = imported.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string })
      .at(-1)
    t.match(done, {
      event: 'done',
      format: 'qcow2',
      virtualBytes: 50_335_744,
      volume: { name: 'two', state: 'detached' },
    })
    const volume = await show(ankole, 'two')
    t.match(volume, { sizeBytes: 64 * MiB, numberOfReplicas: 1, transfer: null })
    for (const bytes of allocatedByVolume(volume)) t.ok(bytes < 5 * MiB, `${bytes} bytes are taken up`)
    t.match(await ankole.run('volume', 'export', 'two', out, '--force'), { exitCode: 0 })
    t.equal(digest(out, 48 * MiB + 512), digest(raw))
    t.equal(statSync(out).size, 64 * MiB)
  })

  await t.test('what cannot be is refused, and changes nothing', async (t) => {
    const before = await volumes(ankole)
    const cut = join(directory, 'cut.raw')
    writeFileSync(cut, Buffer.alloc(8192))
    truncateSync(cut, 8191)
    const foreign = join(directory, 'foreign.vmdk')
    writeFileSync(foreign, Buffer.concat([Buffer.from('KDMV'), Buffer.alloc(8188)]))
    const refusals: [string[], RegExp, number][] = [
      [['import', cut, 'three'], /8191 bytes, which is no multiple of 512.*\(invalid-image\)/s, 1],
      [['import', foreign, 'three'], /a VMDK image.*qemu-img convert.*\(invalid-image\)/s, 1],
      [['import', raw, 'one'], /Volume one exists already.*\(already-exists\)/s, 1],
      [['import', raw, 'three', '--size', '32MiB'], /a volume of 32MiB does not hold it.*\(invalid-size\)/s, 2],
      [['import', raw, 'three', '--replicas', '4'], /\(cannot-place\)/, 1],
      [['export', 'one', raw], /in.raw exists already; --force replaces it.*\(already-exists\)/s, 1],
      [['export', 'none', join(directory, 'new')], /"none" does not exist.*\(not-found\)/s, 1],
    ]
    const files = readdirSync(directory)
    const held = digest(raw)
    for (const [parameters, message, exitCode] of refusals) {
      const said = await ankole.run('volume', ...parameters)
      t.match(said, { exitCode, stdout: '', stderr: message }, parameters.join(' '))
    }
    t.same(await volumes(ankole), before)
    t.same(readdirSync(directory), files)
    t.equal(digest(raw), held)
  })

  await t.test('qcow2 that is truncated, or names other files', { skip: lacksQemuImg }, async (t) => {
    const before = await volumes(ankole)
    const [cut, above] = [join(directory, 'cut.qcow2'), join(directory, 'above.qcow2')]
    writeFileSync(cut, readFileSync(qcow2).subarray(0, -MiB))
    qemuImg('create', '-q', '-f', 'qcow2', '-b', raw, '-F', 'raw', above)
    t.match(await ankole.run('volume', 'import', cut, 'three'), { exitCode: 1, stderr: /it is truncated/ })
    t.match(await ankole.run('volume', 'import', above, 'three'), {
      exitCode: 1,
      stderr: /its backing file ".*in.raw"/,
    })
    t.same(await volumes(ankole), before)
  })

  await t.test('without qemu-img raw works, and qcow2 says what is lacking', async (t) => {
    const empty = join(directory, 'empty')
    mkdirSync(empty)
    const before = await volumes(ankole)
    const path = process.env['PATH']
    process.env['PATH'] = empty
    t.teardown(() => (process.env['PATH'] = path))
    const exported = await ankole.run('volume', 'export', 'one', join(directory, 'new.qcow2'))
    process.env['PATH'] = path
    t.match(exported, { exitCode: 1, stderr: /qemu-img is not installed here.*qemu-utils.*\(missing-program\)/s })
    t.notOk(existsSync(join(directory, 'new.qcow2')))
    t.same(await volumes(ankole), before)
  })

  t.equal((await ankole.stop()).exitCode, 0)
})
