// SPDX-License-Identifier: Apache-2.0

package nginx_test

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
	"github.com/kubernetes-sigs/blixt/operator/migrate/nginx"
)

// The files have the forms that nginx's documentation shows, and broken and strange ones.
func TestGolden(t *testing.T) { migratetest.Cases(t, migratetest.Host, nginx.Read) }
