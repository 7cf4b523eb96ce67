// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// caKey is the key of the CA certificates in their ConfigMap.
const caKey = "ca.crt"

// cluster is one whose operator is asked.
type cluster struct {
	config    *rest.Config
	kube      kubernetes.Interface
	namespace string
	// forward connects to a port of a pod.
	forward func(ctx context.Context, pod string) (net.Conn, error)
}

func newCluster(config *rest.Config, namespace string) (*cluster, error) {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	c := &cluster{config: config, kube: kube, namespace: namespace}
	c.forward = c.forwardPort
	return c, nil
}

// connect returns a connection to the operator's leader, whichever that is when a
// question is asked. Its errors say which right is missing.
func (c *cluster) connect(ctx context.Context) (*grpc.ClientConn, error) {
	if _, err := c.leader(ctx); err != nil {
		return nil, err
	}
	roots, err := c.roots(ctx)
	if err != nil {
		return nil, err
	}
	tokens := &tokens{cluster: c}
	if _, err := tokens.get(ctx); err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+v1alpha1.Operator,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: v1alpha1.Operator + "." + c.namespace + ".svc",
		})),
		grpc.WithPerRPCCredentials(tokens), grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: wire.PingEvery, Timeout: wire.PingTimeout}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			pod, err := c.leader(ctx)
			if err != nil {
				return nil, err
			}
			return c.forward(ctx, pod)
		}),
	)
}

// leader returns the pod of the replica that leads.
func (c *cluster) leader(ctx context.Context) (pod string, err error) {
	lease, err := c.kube.CoordinationV1().Leases(c.namespace).Get(ctx, v1alpha1.Operator, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("no operator has led in namespace %s: is Blixt in another one (--namespace)?", c.namespace)
	}
	if err != nil {
		return "", c.readable("get Lease "+v1alpha1.Operator, err)
	}
	holder := ""
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	pod, _, _ = strings.Cut(holder, "_") // a pod's name has no underscore
	if pod == "" {
		return "", fmt.Errorf("no operator leads in namespace %s at the moment: kubectl -n %s get pods", c.namespace, c.namespace)
	}
	return pod, nil
}

// roots returns the certificates by which the operator is known.
func (c *cluster) roots(ctx context.Context) (*x509.CertPool, error) {
	found, err := c.kube.CoreV1().ConfigMaps(c.namespace).Get(ctx, v1alpha1.CAConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, c.readable("get ConfigMap "+v1alpha1.CAConfigMap, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(found.Data[caKey])) {
		return nil, fmt.Errorf("ConfigMap %s/%s has no certificate", c.namespace, v1alpha1.CAConfigMap)
	}
	return roots, nil
}

// readable returns an error with the remedy, if a right is missing.
func (c *cluster) readable(what string, err error) error {
	err = fmt.Errorf("%s in namespace %s: %w", what, c.namespace, err)
	if apierrors.IsForbidden(err) {
		err = fmt.Errorf("%w: asking nodes takes the Role %s: kubectl -n %s create rolebinding NAME --role=%s --user=YOU",
			err, v1alpha1.ObserverAccount, c.namespace, v1alpha1.ObserverAccount)
	}
	return err
}

// tokens has the token of the account by which the operator is asked. It implements
// credentials.PerRPCCredentials.
type tokens struct {
	cluster *cluster

	mu    sync.Mutex
	token string
	until time.Time
}

// tokenLife is the shortest that the API server permits.
const tokenLife = 10 * time.Minute

// get returns a token that has most of its life before it.
func (t *tokens) get(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Now().Before(t.until) {
		return t.token, nil
	}
	made, err := t.cluster.kube.CoreV1().ServiceAccounts(t.cluster.namespace).CreateToken(ctx, v1alpha1.ObserverAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{v1alpha1.ObserveAudience}, ExpirationSeconds: new(int64(tokenLife / time.Second))},
	}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		return "", fmt.Errorf("there is no ServiceAccount %s in namespace %s: is the chart of an earlier version?", v1alpha1.ObserverAccount, t.cluster.namespace)
	}
	if err != nil {
		return "", t.cluster.readable("create a token of ServiceAccount "+v1alpha1.ObserverAccount, err)
	}
	t.token, t.until = made.Status.Token, time.Now().Add(tokenLife/2)
	return t.token, nil
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t *tokens) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := t.get(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (t *tokens) RequireTransportSecurity() bool { return true }
