module github.com/kubernetes-sigs/blixt

go 1.26.0
