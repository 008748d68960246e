package state

import (
	"context"
	"encoding/json"
)

// Fleet starts, stops and lists the tasks of this deployment. Tasks of other deployments are
// never listed and never touched.
type Fleet interface {
	// Prepare makes the whole input of the call that would start a container of that many
	// slots for that launch, but for the container's token, and says where it will listen. It
	// calls nobody.
	Prepare(launch string, maxSessions int) (input json.RawMessage, port int, err error)
	// Target names what Prepare makes now, for people and to compare: what is started, and
	// where. Launches of one target that fail say something about its next ones.
	Target() string
	// Run starts the launch's task. The same launch again is the same task, also after an
	// answer that was lost. A *LaunchRefused error says that no task will come of this launch;
	// any other error that nobody knows: call again. ErrThrottled, as with the others, asks for
	// fewer calls.
	Run(ctx context.Context, l *Launch) (Task, error)
	// Stop stops a task, with a reason for a person to read. A task that is stopped or unknown
	// is no error.
	Stop(ctx context.Context, arn, reason string) error
	// List gives every task of this deployment that runs or is to run, and the tasks known,
	// running or not, as far as ECS still knows them. Complete or an error.
	List(ctx context.Context, known ...string) ([]Task, error)
	// Describe gives those of the named tasks that are this deployment's.
	Describe(ctx context.Context, arns ...string) ([]Task, error)
}

// LaunchRefused says why ECS will start no task for a launch.
type LaunchRefused struct {
	Reason   string // ECS's word: RESOURCE:…, Capacity is unavailable at this time …
	Capacity bool   // it is a matter of room, not of a wrong request
}

// Error gives the reason.
func (e *LaunchRefused) Error() string { return "launch refused: " + e.Reason }
