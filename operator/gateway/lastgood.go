// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// LastGood has what each class and Gateway was served by when it was last valid. An
// invalid one goes on with that: nobody loses an address or a connection by a typo.
// Each translation returns the LastGood for the next one.
type LastGood struct {
	// Classes are the BlixtConfigs by class; nil: the class named none.
	Classes  map[string]*v1alpha1.BlixtConfig
	Gateways map[types.NamespacedName]Parameters
	// Policies are those that were read. What is invalid goes on as it was when it was valid.
	Policies map[types.NamespacedName]KnownPolicy
}

// Parameters are what a Gateway is served by, besides its listeners and routes, of
// which each invalid one ends alone. They are judged like those of a valid Gateway
// whenever they are used, so it does not matter who could have written them.
type Parameters struct {
	// UID is that of the Gateway. Another one of its name has no past.
	UID       types.UID                 `json:"uid,omitempty"`
	Class     string                    `json:"class"`
	Addresses []gwv1.GatewaySpecAddress `json:"addresses,omitempty"`
	// ClientAddress is what it has unless its BlixtGatewayConfig chooses. Empty: the
	// release that served it did not preserve clients' addresses.
	ClientAddress v1alpha1.ClientAddress `json:"clientAddress,omitempty"`
	// Config is the spec of its BlixtGatewayConfig; nil: it names none.
	Config *v1alpha1.BlixtGatewayConfigSpec `json:"config,omitempty"`
}

// goesOn is appended to why a Gateway or class is invalid.
const goesOn = " Until then, what was valid last goes on."

// of returns what a Gateway was served by when it was last valid.
func (l LastGood) of(gw *gwv1.Gateway) (Parameters, bool) {
	p, known := l.Gateways[types.NamespacedName{Namespace: gw.Namespace, Name: gw.Name}]
	return p, known && p.UID == gw.UID
}

// ofClass returns the BlixtConfig by which a class was last accepted; nil: it named
// none. Its annotation outlives the operator, LastGood is what the annotation may
// not have yet.
func (l LastGood) ofClass(class *gwv1.GatewayClass) (config *v1alpha1.BlixtConfig, known bool) {
	if config, known = l.Classes[class.Name]; known {
		return config, true
	}
	config = &v1alpha1.BlixtConfig{}
	if json.Unmarshal([]byte(class.Annotations[v1alpha1.LastGoodConfigAnnotation]), config) != nil {
		return nil, false
	}
	if config.Name == "" {
		return nil, true
	}
	return config, true
}

// EncodeConfig returns the annotation of a class that was accepted with a
// BlixtConfig: its spec, and the metadata that decide which of several is in force.
func EncodeConfig(config *v1alpha1.BlixtConfig) string {
	essence := v1alpha1.BlixtConfig{}
	if config != nil {
		essence.ObjectMeta = metav1.ObjectMeta{Name: config.Name, UID: config.UID, Generation: config.Generation, CreationTimestamp: config.CreationTimestamp}
		essence.Spec = config.Spec
	}
	text, err := json.Marshal(essence)
	if err != nil { // plain data
		panic(err)
	}
	return string(text)
}

// lastGood returns what the next translation may have to remember.
func (s *environment) lastGood(classes map[string]*class, gateways []*gateway) LastGood {
	l := LastGood{Classes: map[string]*v1alpha1.BlixtConfig{}, Gateways: map[types.NamespacedName]Parameters{}, Policies: s.knownPolicies()}
	for name, c := range classes {
		if c.isServed() {
			l.Classes[name] = c.config.obj
		}
	}
	for _, g := range gateways {
		if g.refused == nil {
			l.Gateways[g.key()] = g.parameters
		} else if p, known := s.LastGood.of(g.obj); known { // the administrator may allow it again
			l.Gateways[g.key()] = p
		}
	}
	return l
}
