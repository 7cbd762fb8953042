import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

void t.test('secrets are cut out of what is logged, as deep as plans hold them', (t) => {
  const log = fileURLToPath(new URL('../../../src/cli/log.js', import.meta.url))
  const script = `
    import { createLog } from ${JSON.stringify(log)}
    const chap = { user: 'me', secret: 'a secret of mine', mutualUser: 'you', mutualSecret: 'a secret of yours' }
    const volume = { secret: 'a secret of the volume', chap }
    const iscsi = { port: 20810, chap }
    const log = createLog('info')
    for (const fields of [chap, volume, { volume }, { iscsi }, { engine: { iscsi } }, { plan: { engine: { iscsi } } }]) {
      log.info(fields, 'here')
    }`
  const logged = execFileSync('sh', [
    '-c',
    '"$0" --input-type=module -e "$1" 2>&1',
    process.execPath,
    script,
  ]).toString()
  t.equal(logged.match(/"msg":"here"/g)?.length, 6, logged)
  t.equal(logged.match(/\[secret\]/g)?.length, 14)
  t.notMatch(logged, /a secret of/)
  t.end()
})
