// SPDX-License-Identifier: Apache-2.0

package ipsec

import (
	"context"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// lookEvery is how often to look for changes of which the kernel did not tell.
	lookEvery = 10 * time.Second
	// retryEvery is how often to try again to be told.
	retryEvery = time.Second
)

// Watch calls changed after each change of policies, and now and then in case one
// was missed, until the context ends. changed is not called concurrently.
func Watch(ctx context.Context, changed func()) {
	told := make(chan struct{}, 1)
	tell := func() {
		select {
		case told <- struct{}{}:
		default: // changed will be called anyway
		}
	}
	go subscribe(ctx, tell)
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-told:
		case <-look.C:
		}
		changed()
	}
}

// subscribe calls tell after each change until the context ends. It subscribes
// again after any error: when changes come faster than they are read, the kernel
// drops some and reports ENOBUFS.
func subscribe(ctx context.Context, tell func()) {
	for ctx.Err() == nil {
		s, err := nl.Subscribe(unix.NETLINK_XFRM, nl.XFRMNLGRP_POLICY)
		if err == nil {
			closed := context.AfterFunc(ctx, s.Close)
			tell() // what has changed until now
			for err == nil {
				if _, _, err = s.Receive(); err == nil {
					tell()
				}
			}
			if closed() {
				s.Close()
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}
