// A node with a served volume, for a test that kills it.

import { TestNode } from './builders.js'

const node = new TestNode(process.argv[2]!, 2, 'auto')
node.apply()
await node.create('demo', { replicas: 2 })
await node.attach('demo')
process.send?.({ pids: node.report.processes.map(({ pid }) => pid) })
