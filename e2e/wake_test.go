package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/wallcrawler/wallcrawler/controller"
	"github.com/wallcrawler/wallcrawler/controller/ecs"
	"github.com/wallcrawler/wallcrawler/controller/ecs/ecslocal"
	"github.com/wallcrawler/wallcrawler/controller/plan"
	"github.com/wallcrawler/wallcrawler/state"
	"github.com/wallcrawler/wallcrawler/state/redisstore"
)

// TestTheWakeFunctionMakesTheControllerLook: a task that has stopped is found because
// EventBridge's event was told to the Lambda function, and for no other reason: whole listings of
// ECS are an hour apart, and nobody has a link to the container.
func TestTheWakeFunctionMakesTheControllerLook(t *testing.T) {
	t.Parallel()
	server := startRedis(t, "canary"+"wake")
	manager := startSecretsManager(t)
	store, err := redisstore.Open(t.Context(), redisstore.Options{Client: server.client, Deployment: "blue"})
	if err != nil {
		t.Fatal(err)
	}
	exits := make(chan struct{})
	cloud, err := ecslocal.Start(ecslocal.Config{Cluster: "e2e", Network: network(), Definitions: map[string]ecslocal.Definition{
		"browser": {Run: func(ctx context.Context, _ ecslocal.TaskEnv) int {
			select {
			case <-exits:
			case <-ctx.Done():
			}
			return 1
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cloud.Close(context.Background()) })
	client := sdk.New(sdk.Options{BaseEndpoint: aws.String(cloud.URL()), Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")})
	fleet := ecs.New(ecs.Config{Client: client, Cluster: "e2e", Deployment: "blue", TaskDefinition: "browser",
		Subnets: []string{"subnet-local"}, RegisterURL: "http://127.0.0.1:1"})

	mirror := state.NewMirror(store, state.MirrorOptions{})
	ids := 0
	c := controller.New(controller.Config{
		Replica: "r1", Store: store, Mirror: mirror, Fleet: fleet, TasksInterval: time.Hour,
		NewID:  func() string { ids++; return fmt.Sprintf("cnt_%d", ids) },
		Policy: plan.Policy{Pool: state.Pool{Min: 1, Max: 1, MaxSessions: 4}, StartDeadline: time.Hour, HungAfter: -1},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	for _, run := range []func(context.Context) error{mirror.Run, c.Run} {
		go func() { _ = run(ctx); done <- struct{}{} }()
	}
	t.Cleanup(func() { cancel(); <-done; <-done; _ = store.Close() })

	// A container registers, and its replica falls silent at once.
	var arn string
	eventually(t, time.Minute, "a task was started", func() error {
		l, err := store.Launch(t.Context(), "cnt_1")
		if err == nil && l.TaskARN == "" {
			err = errors.New("it is not yet")
		}
		if err == nil {
			arn = l.TaskARN
		}
		return err
	})
	registered, err := store.Register(t.Context(), state.Registration{ID: "cnt_1", Launch: "cnt_1", BootID: "boot", Protocol: 2, MaxSessions: 4,
		Claimed: state.Claim{IP: "127.0.0.1", Port: 8080, TaskARN: arn}, Owner: "r2"})
	if err != nil {
		t.Fatal(err)
	}
	owner := state.Authority{Container: "cnt_1", OwnerSeq: registered.OwnerSeq}
	if _, err := store.Report(t.Context(), owner, state.Report{BootID: "boot", Addr: "127.0.0.1:8080", TaskARN: arn}); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "its launch is over", func() error {
		if l, err := store.Launch(t.Context(), "cnt_1"); err != nil || l.Outcome == state.Registered {
			return nil //nolint:nilerr // over and forgotten
		}
		return errors.New("it is not")
	})

	close(exits)
	eventually(t, time.Minute, "ECS says that the task has stopped", func() error {
		tasks, err := fleet.Describe(t.Context(), arn)
		if err == nil && (len(tasks) != 1 || !tasks[0].Stopped()) {
			err = fmt.Errorf("it says %+v", tasks)
		}
		return err
	})
	phase := func() (state.ContainerPhase, error) {
		c, err := store.Container(t.Context(), "cnt_1")
		if err != nil {
			return "", err
		}
		return c.Phase, nil
	}
	if p, err := phase(); err != nil || p == state.Gone {
		t.Fatalf("before anybody told of it, the container is %s: %v", p, err)
	}
	wake(t, server, manager, arn)
	eventually(t, time.Minute, "the controller has looked", func() error {
		p, err := phase()
		if err == nil && p != state.Gone {
			err = fmt.Errorf("the container is %s", p)
		}
		return err
	})
}

// wake runs the Lambda function with EventBridge's event.
func wake(t *testing.T, server *redisServer, manager *secretsManager, arn string) {
	t.Helper()
	file, err := filepath.Abs("../deploy/lambda/wake.mjs")
	if err != nil {
		t.Fatal(err)
	}
	script := `const { handler } = await import(process.argv[1]);
await handler({ 'detail-type': 'ECS Task State Change', source: 'aws.ecs', detail: { taskArn: process.argv[2], lastStatus: 'STOPPED' } });
process.exit(0);`
	node := exec.CommandContext(t.Context(), "node", "--input-type=module", "--eval", script, file, arn)
	node.Env = environ(map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": t.TempDir(), "DEPLOYMENT": "blue", "REDIS_ENDPOINT": server.addr, "REDIS_USERNAME": "default",
		"REDIS_PASSWORD_ARN": manager.draw("RedisWake", server.password),
		"AWS_REGION":         "us-east-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_ENDPOINT_URL_SECRETS_MANAGER": manager.URL,
	})
	if out, err := node.CombinedOutput(); err != nil {
		t.Fatalf("the function has failed: %v\n%s", err, out)
	}
}
