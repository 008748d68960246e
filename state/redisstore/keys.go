package redisstore

import "strings"

// documentPrefix begins the keys of the requesters' documents: strings of JSON with a TTL.
// Nothing else may ever live under it.
const documentPrefix = "session:"

// deploymentKey (string) holds the name of the one deployment that this Redis serves.
const deploymentKey = "wallcrawler:deployment"

// The keys that others know beside the documents.
const (
	desiredKey   = "pool:desired" // string of JSON: an operator's wishes about the pool, which we only read
	poolStateKey = "pool:state"   // string of JSON: how the pool stands, written by the leader
)

// healthKey (string of JSON, 60 s) shows the health of a container.
func healthKey(id string) string { return "container:" + id + ":health" }

// notesKey (hash) holds what a v1 container notes of its sessions. It writes it; we remove
// what it leaves behind.
func notesKey(id string) string { return "container:" + id + ":sessions" }

// keys names every key of one deployment. The braces are literal: they put all control keys
// into one slot of a cluster, so that one script may change several of them.
type keys struct {
	prefix string

	seq         string // string: the store's revision clock, µs
	epoch       string // string: the highest leader's epoch ever
	leader      string // string "epoch replica", with a TTL: who leads
	incarnation string // string: random, written once
	wake        string // stream, capped: hints; field h holds lines "kind rev id"
	sessions    string // zset id → rev: the index of sessions
	containers  string // zset id → rev: the index of containers
	launches    string // zset id → rev: the index of launches
	pool        string // hash: what one leader leaves to the next about the pool
	events      string // stream, capped: what happened and why, for people
	leaving     string // zset "session id" or "container id" → ms at which it leaves its index
}

func newKeys(deployment string) keys {
	p := "wallcrawler:{" + deployment + "}:"
	return keys{
		prefix: p, seq: p + "seq", epoch: p + "epoch", leader: p + "leader", incarnation: p + "incarnation",
		wake: p + "wake", sessions: p + "sessions", containers: p + "containers", launches: p + "launches",
		leaving: p + "leaving", pool: p + "pool", events: p + "events",
	}
}

// document (string) is a requester's half of a session.
func document(id string) string { return documentPrefix + id }

// documentID gives the id in a document's key.
func documentID(key string) (string, bool) { return strings.CutPrefix(key, documentPrefix) }

// session (hash) is the status of a session.
func (k *keys) session(id string) string { return k.prefix + "session:" + id }

// container (hash) is a container's record, without its slots.
func (k *keys) container(id string) string { return k.prefix + "container:" + id }

// slots (set) holds the ids of the sessions that hold a slot of a container.
func (k *keys) slots(id string) string { return k.prefix + "slots:" + id }

// launch (string of JSON) is a launch.
func (k *keys) launch(id string) string { return k.prefix + "launch:" + id }

// probe (string, written and deleted at once) shows whether keyspace notifications arrive.
// It lies outside the tag so that each master of a cluster can have one of its own.
func (k *keys) probe(n string) string { return k.prefix[:len("wallcrawler:")] + "probe:" + n }
