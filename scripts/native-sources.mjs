// Prints the addon's sources, one a line, for binding.gyp: every native/**/*.cc but the tests, the
// fuzzers and the simulator.
import { readdirSync } from 'node:fs'

const modules = ['base', 'io', 'wire', 'replica', 'engine', 'scsi', 'iscsi', 'nbd', 'napi']

for (const module of modules) {
  let names
  try {
    names = readdirSync(`native/${module}`).sort()
  } catch {
    continue // a module of a later release
  }
  for (const name of names) {
    if (!name.endsWith('.cc') || /_(test|fuzz)\.cc$/.test(name) || name === 'test_main.cc') continue
    console.log(`native/${module}/${name}`)
  }
}
