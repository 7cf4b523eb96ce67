// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	error
}

func (e *exitError) Unwrap() error { return e.error }

// unreachable is the exit code if the cluster does not answer.
const unreachable = 2

// clusterFlags select the cluster, and the namespace of Blixt in it.
type clusterFlags struct {
	kubeconfig, context, namespace, as string
}

func (c *clusterFlags) add(f *pflag.FlagSet) {
	namespace := os.Getenv("POD_NAMESPACE")
	if namespace == "" {
		namespace = v1alpha1.Namespace
	}
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file of the cluster (default: $KUBECONFIG, ~/.kube/config, or the pod's ServiceAccount)")
	f.StringVar(&c.context, "context", "", "context in the kubeconfig file (default: the current one)")
	f.StringVar(&c.as, "as", "", "user to act as, which takes the right to impersonate")
	f.StringVarP(&c.namespace, "namespace", "n", namespace, "namespace of Blixt's operator")
}

// name returns what people call the cluster: the context; "": none is named.
func (c *clusterFlags) name() string {
	if c.context != "" {
		return c.context
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	all, err := rules.Load()
	if err != nil {
		return ""
	}
	return all.CurrentContext
}

// config returns how to reach the cluster. Returns an exitError if none is named.
func (c *clusterFlags) config() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{
		CurrentContext: c.context, AuthInfo: clientcmdapi.AuthInfo{Impersonate: c.as},
	}).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New(nowhere(rules))
	}
	if err != nil {
		return nil, &exitError{unreachable, fmt.Errorf("find cluster: %w: name it with --kubeconfig and --context", err)}
	}
	config.QPS, config.Burst = 50, 100
	return config, nil
}

// found reports whether a cluster is named anywhere.
func (c *clusterFlags) found() bool {
	if os.Getenv(clientcmd.RecommendedConfigPathEnvVar) != "" {
		return true
	}
	_, err := c.config()
	return err == nil
}

// requestLimit is how long an API server may take for an answer. Tests change it.
var requestLimit = 30 * time.Second

// connect returns a client, and the cluster's version. Returns an exitError if
// the API server does not answer.
func (c *clusterFlags) connect() (client.Client, string, error) {
	config, err := c.config()
	if err != nil {
		return nil, "", err
	}
	config.Timeout = requestLimit
	version, err := serverVersion(config)
	if err != nil {
		return nil, "", &exitError{unreachable, fmt.Errorf("ask %s: %w: is it the right cluster (--context), and does kubectl reach it?", config.Host, err)}
	}
	as, err := client.New(config, client.Options{Scheme: kube.Scheme})
	if err != nil {
		return nil, "", &exitError{unreachable, fmt.Errorf("ask %s: %w", config.Host, err)}
	}
	return as, version, nil
}

// nowhere lists where no cluster was found: the library's error names no file.
func nowhere(rules *clientcmd.ClientConfigLoadingRules) string {
	var parts []string
	files := rules.Precedence
	switch {
	case rules.ExplicitPath != "":
		files = []string{rules.ExplicitPath}
	case os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "":
		parts = append(parts, "KUBECONFIG is not set", "this is no pod")
	}
	for _, file := range files {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			parts = append(parts, file+" does not exist")
		} else {
			parts = append(parts, file+" has no current context")
		}
	}
	return strings.Join(parts, ", ")
}

func serverVersion(config *rest.Config) (string, error) {
	d, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return "", err
	}
	info, err := d.ServerVersion()
	if err != nil {
		return "", err
	}
	return info.GitVersion, nil
}
