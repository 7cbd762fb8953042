import t from 'tap'
import { checkChap } from '../../../src/manager/index.js'

const secret = 'twelve bytes'
const other = 'and twelve more'

void t.test('one way, and mutual', (t) => {
  t.same(checkChap({ user: 'me', secret }), { user: 'me', secret })
  const mutual = { user: 'me', secret, mutualUser: 'you', mutualSecret: other }
  t.same(checkChap(mutual), mutual)
  t.doesNotThrow(() => checkChap({ user: 'iqn.1993-08.org.debian:01:e5f2', secret: 'x'.repeat(64) }))
  t.end()
})

void t.test('what is wrong is said without the secret', (t) => {
  const wrong: [Parameters<typeof checkChap>[0], RegExp][] = [
    [{ user: '', secret }, /CHAP user has 0 characters/],
    [{ user: 'x'.repeat(224), secret }, /CHAP user has 224 characters: 1 to 223/],
    [{ user: 'a b', secret }, /CHAP user holds a character/],
    [{ user: 'mé', secret }, /CHAP user holds a character/],
    [{ user: 'me', secret: 'eleven byte' }, /CHAP secret has 11 bytes: 12 to 64/],
    [{ user: 'me', secret: 'x'.repeat(65) }, /CHAP secret has 65 bytes/],
    [{ user: 'me', secret: 'é'.repeat(33) }, /CHAP secret has 66 bytes/],
    [{ user: 'me', secret: `${secret}\0` }, /CHAP secret holds a character/],
    [{ user: 'me', secret: `${secret}\n` }, /CHAP secret holds a character/],
    [{ user: 'me', secret, mutualUser: 'you' }, /has a user, but no secret/],
    [{ user: 'me', secret, mutualSecret: other }, /has a secret, but no user/],
    [{ user: 'me', secret, mutualUser: 'you', mutualSecret: 'short' }, /mutual CHAP secret has 5 bytes/],
    [{ user: 'me', secret, mutualUser: '', mutualSecret: other }, /mutual CHAP user has 0/],
    [{ user: 'me', secret, mutualUser: 'you', mutualSecret: secret }, /are the same/],
  ]
  for (const [chap, message] of wrong) {
    t.throws(() => checkChap(chap), { code: 'invalid-chap', message }, String(message))
    try {
      checkChap(chap)
    } catch (error) {
      t.notOk((error as Error).message.includes(chap.secret))
    }
  }
  t.end()
})
