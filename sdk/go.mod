module github.com/freshet-dev/freshet/sdk

go 1.26.3
