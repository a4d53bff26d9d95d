"""MLflow's Model Registry API, so that MLflow's own clients work unchanged: the same commands and views as the native
API, in MLflow's words.

    MLflow                      here
    workspace                   the header X-MLFLOW-WORKSPACE (`mlflow.set_workspace`), else `default`
    bearer token                a token, as everywhere; in basic authentication the password is the token, and the user
                                name is not looked at
    registered model            a model, by its present name only: a former name answers 404, as in MLflow
    user_id                     who registered it
    stage None                  the stage where versions begin (Development)
    other stages                the stages of the workspace's lifecycle; capitals do not matter
    transition_model_version_   a request for the stage; where a decision is needed the call waits for it, and fails
    stage, set alias            with the address of the request when there is none yet
    page token                  a cursor: pages hold while rows come and go

Names follow the stricter of both rules: ours are 200 characters at most, with no dot or space at the beginning, and an
alias begins with a letter or `_`. Texts are 10,000 characters at most, tags too.
"""
