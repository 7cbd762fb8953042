export * from './messages.js'
export * from './addon.js'
export * from './requests.js'
