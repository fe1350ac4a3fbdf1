module github.com/freshet-dev/freshet/examples/gosearch

go 1.26.3

require github.com/freshet-dev/freshet/sdk v0.0.0

replace github.com/freshet-dev/freshet/sdk => ../../sdk
