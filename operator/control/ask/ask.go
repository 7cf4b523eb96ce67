// SPDX-License-Identifier: Apache-2.0

// Package ask is the operator's endpoint for commands that ask nodes what they see.
// Whoever asks shows a token, and the API server says whose it is, and whether they
// may.
package ask

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/access"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/transport"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

const (
	// reviewTimeout is for all reviews of a question.
	reviewTimeout = 10 * time.Second
	// maxAge is how long an answer may last: then the right is checked again.
	maxAge = time.Hour
	// maxNamed is how many nodes one may ask by name without the right to ask all.
	maxNamed = 16
	// maxName is how long the name of a node may be.
	maxName = 253
)

// Serve answers on a listener until ctx ends.
func Serve(ctx context.Context, l net.Listener, config *tls.Config, kube kubernetes.Interface, fleet transport.Fleet, log *slog.Logger) error {
	e := &endpoint{kube: kube, fleet: fleet, log: log}
	return transport.Serve(ctx, transport.NewServer(e.answer, transport.Options{MaxAge: maxAge}, grpc.Creds(credentials.NewTLS(config))), l)
}

type endpoint struct {
	kube  kubernetes.Interface
	fleet transport.Fleet
	log   *slog.Logger
	said  said
}

const (
	// saidEvery is how often the log says at level info that somebody asks: pages ask every
	// few seconds.
	saidEvery = time.Minute
	maxSaid   = 1000
)

// said is when the log last said that a user asks questions of a kind.
type said struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// level returns the level at which the log is to say it now.
func (s *said) level(user string, kind observe.Kind, now time.Time) slog.Level {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := string(kind) + " " + user
	if since := now.Sub(s.last[key]); since >= 0 && since < saidEvery {
		return slog.LevelDebug
	}
	if s.last == nil || len(s.last) >= maxSaid {
		s.last = map[string]time.Time{}
	}
	s.last[key] = now
	return slog.LevelInfo
}

// answer is a transport.Handler.
func (e *endpoint) answer(ctx context.Context, r *wire.AskRequest, send func(*wire.AskReply) error) error {
	var q observe.Query
	if err := json.Unmarshal(r.Query, &q); err != nil {
		return status.Errorf(codes.InvalidArgument, "read the question: %v", err)
	}
	kind, err := q.Kind()
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	for _, node := range r.Nodes {
		if node == "" || len(node) > maxName {
			return status.Errorf(codes.InvalidArgument, "%q is no name of a node", phrase.Clip(node, maxName))
		}
	}
	user, err := e.authorize(ctx, kind, r.Nodes)
	if err != nil {
		if user != "" {
			e.log.Warn("question refused", "user", user, "kind", kind, "error", err)
		}
		return err
	}
	start := time.Now()
	err = e.fleet.Ask(ctx, q, r.Nodes, send)
	e.log.Log(ctx, e.said.level(user, kind, start), "question answered", "user", user, "kind", kind, "nodes", len(r.Nodes), "took", time.Since(start), "error", err)
	return err
}

// authorize returns who asks. It returns an error unless they may.
func (e *endpoint) authorize(ctx context.Context, kind observe.Kind, nodes []string) (user string, err error) {
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	who, err := e.authenticate(ctx)
	if err != nil {
		return "", err
	}
	all, err := e.mayAsk(ctx, who, kind, "")
	if err != nil || all {
		return who.Username, err
	}
	denied := status.Errorf(codes.PermissionDenied, "%s may not get %s of all nodes: that takes the right to get nodedataplanes/%s.%s", who.Username, kind, kind, v1alpha1.GroupName)
	if len(nodes) == 0 || len(nodes) > maxNamed {
		return who.Username, denied
	}
	for _, node := range nodes {
		may, err := e.mayAsk(ctx, who, kind, node)
		if err != nil {
			return who.Username, err
		}
		if !may {
			return who.Username, status.Errorf(codes.PermissionDenied, "%s may not get %s of node %s: that takes the right to get nodedataplanes/%s.%s", who.Username, kind, node, kind, v1alpha1.GroupName)
		}
	}
	return who.Username, nil
}

// authenticate returns whose token it is.
func (e *endpoint) authenticate(ctx context.Context) (authenticationv1.UserInfo, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	var token string
	if values := md.Get("authorization"); len(values) == 1 {
		token, _ = strings.CutPrefix(values[0], "Bearer ")
	}
	if token == "" {
		return authenticationv1.UserInfo{}, status.Error(codes.Unauthenticated, "there is no token")
	}
	who, err := access.User(ctx, e.kube, token, v1alpha1.ObserveAudience)
	switch {
	case errors.Is(err, access.ErrUnknown):
		return who, status.Errorf(codes.Unauthenticated, "the API server does not know the token, or it is not for audience %s", v1alpha1.ObserveAudience)
	case err != nil:
		return who, e.notReviewed("the token", err)
	}
	return who, nil
}

// mayAsk reports whether a user may ask a node; "": all nodes.
func (e *endpoint) mayAsk(ctx context.Context, who authenticationv1.UserInfo, kind observe.Kind, node string) (bool, error) {
	may, err := access.May(ctx, e.kube, who, authorizationv1.SubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: "get", Group: v1alpha1.GroupName, Resource: "nodedataplanes", Subresource: string(kind), Name: node,
		},
	})
	if err != nil {
		return false, e.notReviewed("the right", err)
	}
	return may, nil
}

// notReviewed logs why something could not be reviewed, which is not for askers.
func (e *endpoint) notReviewed(what string, err error) error {
	if !errors.Is(err, context.Canceled) {
		e.log.Error("questions cannot be answered", "error", err)
	}
	return status.Errorf(codes.Internal, "%s could not be checked: the operator's log says why", what)
}
