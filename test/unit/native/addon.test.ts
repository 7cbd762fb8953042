import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { AddonError, addonPath, loadAddon } from '../../../src/native/index.js'

t.test('the addon is looked for in the package, wherever the code was compiled to', (t) => {
  const path = addonPath()
  t.ok(path.endsWith(join('build', 'Release', 'ankole.node')))
  t.ok(existsSync(path.replace(join('build', 'Release', 'ankole.node'), 'package.json')))
  t.end()
})

t.test('one that was not built is an error that says how to build it', (t) => {
  const path = join(t.testdir(), 'ankole.node')
  t.throws(() => loadAddon(path), AddonError)
  t.throws(() => loadAddon(path), { message: /is not built: .*ankole\.node is missing\. .*npm run build:native/ })
  t.end()
})

t.test('one that does not load is an error with the cause', (t) => {
  const path = join(t.testdir(), 'ankole.node')
  writeFileSync(path, 'not a shared object')
  t.throws(() => loadAddon(path), { message: /does not load: .*(ELF|too short|slice).*npm run build:native/ })
  t.end()
})
