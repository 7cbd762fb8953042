import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readChap } from '../../../src/cli/chap.js'

function aFile(t: Test, content: string | Buffer): string {
  const path = join(t.testdir(), 'secret')
  writeFileSync(path, content)
  return path
}

void t.test('nothing asked for is no CHAP', (t) => {
  t.equal(readChap({}), undefined)
  t.end()
})

void t.test('one newline at the end of a file is not of the secret, and nothing else is cut', (t) => {
  const read = (content: string): string | undefined =>
    readChap({ chapUser: 'me', chapSecretFile: aFile(t, content) })?.secret
  t.equal(read('twelve bytes'), 'twelve bytes')
  t.equal(read('twelve bytes\n'), 'twelve bytes')
  t.equal(read('twelve bytes\r\n'), 'twelve bytes')
  t.equal(read(' twelve bytes \n'), ' twelve bytes ')
  t.equal(read(`${'x'.repeat(64)}\r\n`), 'x'.repeat(64))
  t.end()
})

void t.test('files that are no secret are named, and what is in them is not', (t) => {
  const wrong: [string | Buffer, RegExp][] = [
    ['', /has 0 bytes/],
    ['eleven byte\n', /has 11 bytes/],
    ['x'.repeat(65), /has 65 bytes: 12 to 64/],
    ['x'.repeat(1 << 20), /secret is too long .*64 bytes/],
    ['twelve bytes\n\n', /more than one line/],
    ['twelve bytes\ntwelve bytes', /more than one line/],
    [Buffer.from('twelve bytes\0'), /not printable/],
    [Buffer.alloc(20, 0xff), /not printable/],
  ]
  for (const [content, message] of wrong) {
    const options = { chapUser: 'me', chapSecretFile: aFile(t, content) }
    t.throws(() => readChap(options), { code: 'invalid-chap', message }, String(message))
  }
  const missing = join(t.testdir(), 'missing')
  t.throws(() => readChap({ chapUser: 'me', chapSecretFile: missing }), { code: 'invalid-chap', message: missing })
  t.throws(() => readChap({ chapUser: 'me', chapSecretFile: t.testdir() }), { code: 'invalid-chap' })
  t.throws(() => readChap({ chapUser: 'me', chapSecretFile: '/dev/zero' }), {
    code: 'invalid-chap',
    message: /too long/,
  })
  t.end()
})

void t.test('options that belong together are named', (t) => {
  const file = aFile(t, 'twelve bytes')
  const wrong: [Parameters<typeof readChap>[0], RegExp][] = [
    [{ chapUser: 'me' }, /--chap-secret-file is missing/],
    [{ chapSecretFile: file }, /--chap-user is missing/],
    [{ chapMutualUser: 'you', chapMutualSecretFile: file }, /needs --chap-user and --chap-secret-file too/],
    [{ chapUser: 'me', chapSecretFile: file, chapMutualUser: 'you' }, /--chap-mutual-secret-file is missing/],
    [{ chapUser: 'me', chapSecretFile: file, chapMutualSecretFile: file }, /--chap-mutual-user is missing/],
    [{ chapUser: 'me', chapSecretFile: file, chapMutualUser: 'you', chapMutualSecretFile: file }, /are the same/],
  ]
  for (const [options, message] of wrong) {
    t.throws(() => readChap(options), { code: 'invalid-chap', message }, String(message))
  }
  t.end()
})
