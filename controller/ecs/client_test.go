package ecs_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/wallcrawler/wallcrawler/controller/ecs"
)

// bare takes all of AWS out of the environment.
func bare(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE",
	} {
		t.Setenv(name, "")
	}
	nowhere := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", nowhere)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func TestAnEndpointOnLoopbackNeedsNoAccount(t *testing.T) {
	bare(t)
	f := fleet(client(t, cluster(t)))
	run(t, f, "cnt_1")
}

func TestAnotherEndpointNeedsARegion(t *testing.T) {
	bare(t)
	for _, endpoint := range []string{"", "https://ecs.example"} {
		if _, err := ecs.NewClient(t.Context(), ecs.ClientOptions{Endpoint: endpoint}); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
			t.Errorf("endpoint %q: got %v, want a word about AWS_REGION", endpoint, err)
		}
	}
	if _, err := ecs.NewClient(t.Context(), ecs.ClientOptions{Endpoint: "127.0.0.1:4566"}); err == nil {
		t.Error("an endpoint that is no URL was accepted")
	}
	if _, err := ecs.NewClient(t.Context(), ecs.ClientOptions{Region: "eu-west-1"}); err != nil {
		t.Error(err)
	}
}

// Ten tasks make an answer that comes in several pieces, right after the request.
func TestAQuickAnswerIsReadToItsEnd(t *testing.T) {
	c := client(t, cluster(t))
	in := &sdk.RunTaskInput{
		ClientToken:    aws.String("cnt_1"),
		Count:          aws.Int32(10),
		TaskDefinition: aws.String(family),
		NetworkConfiguration: &types.NetworkConfiguration{AwsvpcConfiguration: &types.AwsVpcConfiguration{
			Subnets: []string{"subnet-1"},
		}},
	}
	for range 400 {
		if _, err := c.RunTask(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
}
