export { findOpener, type Opener } from './openers.js'
export { refuseFaulty, snapshotsIn, type FoundSnapshot } from './report.js'
export { checkDirectory, copyDirectory, exportDirectory, prepareDirectory, type Doing } from './tool.js'
