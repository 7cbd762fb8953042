export * from './errors.js'
export * from './schemas.js'
export { iscsiView, type Faces } from './views.js'
export { buildServer, listen, type Server, type ServerOptions } from './server.js'
