export * from './resources.js'
export * from './store.js'
export * from './records.js'
export { SqliteStore } from './sqlite.js'
