package ecs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/smithy-go"

	"github.com/wallcrawler/wallcrawler/state"
)

// throttled tells whether AWS asks for fewer calls.
func throttled(err error) bool {
	return retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary
}

// conflicting gives ECS's complaint that a clientToken was used with other parameters, or nil.
func conflicting(err error) *types.ConflictException {
	conflict, _ := errors.AsType[*types.ConflictException](err)
	return conflict
}

// missingTask tells whether a call named a task that ECS does not know (any more).
func missingTask(err error) bool {
	var parameter *types.InvalidParameterException
	return errors.As(err, &parameter) && strings.Contains(strings.ToLower(parameter.ErrorMessage()), "task was not found")
}

// explain wraps an error of the API with what was being done and, where a person can mend it,
// what to look at.
func (f *Fleet) explain(err error, doing string) error {
	if throttled(err) {
		return fmt.Errorf("%s: %w: %w", doing, state.ErrThrottled, err)
	}
	if hint := f.hint(err); hint != "" {
		return fmt.Errorf("%s: %w; %s", doing, err, hint)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (f *Fleet) hint(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "it may have been carried out all the same"
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		return ""
	}
	switch api.ErrorCode() {
	case "ClusterNotFoundException":
		return fmt.Sprintf("check the cluster's name (%s) and the region", f.cfg.Cluster)
	case "AccessDeniedException", "AccessDenied":
		return "let this service's role ecs:RunTask, StopTask, ListTasks, DescribeTasks and TagResource on that cluster, and iam:PassRole for the task's roles"
	case "UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationTokenException", "ExpiredTokenException":
		return "check this service's AWS credentials and the machine's clock"
	case "InvalidParameterException", "ClientException":
		return "check that the task definition " + f.cfg.TaskDefinition + " is active and has the container " + f.cfg.ContainerName + ", and check subnets, security groups, launch type and quotas"
	case "PlatformUnknownException", "PlatformTaskDefinitionIncompatibilityException":
		return "check the platform version against the task definition"
	case "BlockedException":
		return "the AWS account is blocked: ask AWS support"
	}
	return ""
}

// capacity tells whether a failure of RunTask is a matter of room: in the instances, in
// Fargate, or in the account's quota of vCPUs.
func capacity(reason, detail string) bool {
	if strings.HasPrefix(reason, "RESOURCE:") {
		return true
	}
	text := strings.ToLower(reason + " " + detail)
	return strings.Contains(text, "capacity") || strings.Contains(text, "limit on the number of vcpus")
}
