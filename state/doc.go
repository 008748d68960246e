// Package state is the vocabulary that api, proxy and controller share: sessions,
// containers, tasks, launches and pools, their phases, and the roles that a store plays
// for them. The three halves of the service never import one another; they meet here.
//
// A session has two halves. Its spec is the requester's and lives in the document
// session:{id}; its status is ours and lives in the store's control records, written only
// by the transitions in this package's roles. docs/state.md lists every key and its writer.
//
// This package imports the standard library only, does no input or output of its own, and
// holds no clock but the one that its callers pass in.
package state
